"""What all pages that people read have in common: one look, nothing from outside, and text that is never markup."""
