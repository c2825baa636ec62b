"""Small worlds with data and a rubric of their own."""
