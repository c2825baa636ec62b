"""REINFORCE, leave one out."""
