"""The stage `data_validation`: raw JSONL in; clean splits, a quarantine and a data report out."""
