"""The border to Hugging Face and Accelerate: loading, tokens, generation and forward passes."""
