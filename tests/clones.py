"""What clones of this project are given in tests."""

from __future__ import annotations

import sys
from pathlib import Path


def lend_venv(clone: Path) -> None:
    """What runs these tests, as if `make` had installed it in the clone; what `make` notes stays the clone's."""
    (clone / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (clone / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (clone / ".venv" / ".installed").touch()
