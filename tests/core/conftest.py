"""Property tests draw the same examples on every run, write nothing to disk, and know no deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("proximal", database=None, deadline=None, derandomize=True, max_examples=30)
settings.load_profile("proximal")
