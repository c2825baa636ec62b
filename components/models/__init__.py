"""Models and their text: tokenizers, policies, scorers, and how they are stored."""
