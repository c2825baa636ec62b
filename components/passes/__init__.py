"""Forward passes over batches of sequences."""
