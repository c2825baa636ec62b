"""What DVC's own files say: the pinned data, the lock, the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import ArtifactError, EnvironmentFault


def pinned_data(root: Path) -> str | None:
    """The DVC hash of data/ that data.dvc pins; None where the data is not pinned."""
    pin = root / "data.dvc"
    return _load(pin)["outs"][0]["md5"] if pin.exists() else None


def locked_outputs(lock: Path) -> dict[str, dict[str, str]]:
    """Stage name -> {output path: digest} as dvc.lock records it; empty before the first `dvc repro`."""
    stages = _load(lock)["stages"] if lock.exists() else {}
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in stages.items()}


def dvc_cache(repository: Path) -> Path:
    """DVC's cache folder, as the repository's configuration says.

    Raises:
        EnvironmentFault: DVC does not say.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1"}  # a question of ours, which DVC need not report
    asked = subprocess.run(command, cwd=repository, env=quiet, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise EnvironmentFault(
            "DVC does not say where its cache is",
            where="dvc cache dir",
            found=asked.stderr.strip(),
            do="run from the root of the repository",
        )
    return Path(asked.stdout.strip())


def cached_file(cache: Path, md5: str) -> Path:
    """Where the cache keeps the content with this digest."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _load(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as fault:
        raise ArtifactError(
            "a file of DVC does not parse",
            where=str(path),
            expected="YAML, as DVC writes it",
            found=" ".join(str(fault).split()),
            do=f"restore it with `git checkout {path}`",
        ) from fault
