"""Fixtures for all tests of alignment."""

from planted import stopped  # noqa: F401
