"""What DPO and online DPO share: the loss of pairs of responses against a reference policy."""
