"""Direct preference optimisation: the policy learns from comparisons, with no reward model and no sampling."""
