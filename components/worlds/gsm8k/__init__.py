"""Grade-school mathematics (GSM8K, Cobbe et al. 2021): no data of its own, but the checker of answers."""
