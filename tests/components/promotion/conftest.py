"""The workspace is a fixture here."""

from promotion_workspace import models, shared_store, workspace  # noqa: F401
