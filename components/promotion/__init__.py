"""Whether the candidate becomes the champion, and its place in the model registry."""
