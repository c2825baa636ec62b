"""The page on which people say which of two answers is better."""

TOKEN_VARIABLE = "PROXIMAL_LABEL_TOKEN"  # what annotators must know; no list of processes shows it
