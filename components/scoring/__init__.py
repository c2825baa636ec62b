"""What a response is worth: the reward model and the judge, each a weighted sum of parts that params name."""
