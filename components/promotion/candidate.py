"""The candidate's policy as it goes into the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.models.adapter_origin import CONFIG_FILE


@contextmanager
def on_its_own(policy: Path) -> Iterator[Path]:
    """A folder with the policy that needs no other: adapters are merged, as their base does not come along."""
    if not any(policy.rglob(CONFIG_FILE)):
        yield policy
        return
    from components.models.adapters import write_merged

    with tempfile.TemporaryDirectory() as scratch:
        write_merged(policy, Path(scratch) / "policy")
        yield Path(scratch) / "policy"
