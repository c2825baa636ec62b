"""The records by hand are fixtures here."""

from records_by_hand import candidate, settings, sft  # noqa: F401
