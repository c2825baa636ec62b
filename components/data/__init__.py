"""The clean data: its rows, typed, and how they are read and written."""
