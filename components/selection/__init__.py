"""Which cycle becomes the candidate: the best by the judge among those that stayed near the SFT policy."""
