"""Q-learning for language (ILQL): policy and Q heads learn from scored responses; the heads guide the decoding."""
