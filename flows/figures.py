"""Brings from DVC's remote what a commit keeps there of its runs, its figures: `make` calls it, for `dvc metrics diff`.

A plain `dvc fetch` asks for the models too, which nobody pushes, and lists them all as missing.
"""

from __future__ import annotations

import os
import sys

from dvc.cli import main
from dvc.repo import Repo


def pushed_outs() -> list[str]:
    """The paths of all outs of the pipelines that `dvc push` takes, from the present folder on."""
    with Repo() as repo:
        return [os.path.relpath(out.fs_path) for out in repo.index.outs if out.can_push and out.use_cache]


if __name__ == "__main__":
    sys.exit(main(["fetch", *pushed_outs()]))
