"""When, where and how often the pipeline runs: Prefect, and nothing that needs torch or pandas."""
