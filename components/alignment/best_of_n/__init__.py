"""Best of n: no training; the baseline that every other method must beat at the same KL."""
