"""Generation: from prompts to responses."""
