"""SFT policy against candidate on held-out prompts: figures with intervals, plots, samples and the report."""
