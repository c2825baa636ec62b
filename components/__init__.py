"""What the stages of the pipeline do. No Prefect in here."""
