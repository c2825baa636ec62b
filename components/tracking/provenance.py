"""Where a run comes from: the commit, the pinned data, the params, the process, and the digests of files."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.config import Params
from components.digests import digest, digest_of_values
from components.errors import ArtifactError

DATA_PIN = Path("data.dvc")
DVC_LOCK = Path("dvc.lock")
_NO_LOCK = f":(exclude,glob)**/{DVC_LOCK}"
HOST, PID, STARTED = "process_host", "process_pid", "process_started"


def provenance_tags(params: Params) -> dict[str, str]:
    """Tags that every run carries: commit, data, params, precision, flow run and process."""
    commit = _git("rev-parse", "HEAD")
    return {
        "git_commit": commit or "none",
        # Without dvc.lock: a run writes it, and it says what came out, not what went in.
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", _NO_LOCK))).lower(),
        "mlflow.source.git.commit": commit,
        "data_md5": pinned_data() or "none",
        "mixed_precision": os.environ.get("ACCELERATE_MIXED_PRECISION", ""),
        "params_sha256": digest_of_values(params.model_dump(mode="json")),
        "prefect_flow_run_id": os.environ.get("PROXIMAL_FLOW_RUN_ID", ""),
        HOST: socket.gethostname(),
        PID: str(os.getpid()),
        STARTED: str(psutil.Process().create_time()),
    }


def pinned_data() -> str | None:
    """The DVC hash of data/ that data.dvc pins; None where the data is not pinned."""
    return _load(DATA_PIN)["outs"][0]["md5"] if DATA_PIN.exists() else None


def locked_outputs(lock: Path = DVC_LOCK) -> dict[str, dict[str, str]]:
    """Stage name -> {output path: digest} as dvc.lock records it; empty before the first `dvc repro`."""
    stages = _load(lock)["stages"] if lock.exists() else {}
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in stages.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested params as dotted names, e.g. {"ppo": {"gamma": 1.0}} -> {"ppo.gamma": "1.0"}."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        # `dict`, not `Mapping`: an abstract class asks all that MLflow has imported, 50 ms for each type of value.
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: str(value)}
    return flat


def process_is_gone(tags: Mapping[str, str]) -> bool:
    """True when the process that these tags name ran on this host and does not run any more."""
    if tags.get(HOST) != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(tags[PID]))
        # A number is given again, a start time is not; psutil derives it from the boot time, which may drift.
        is_another = abs(process.create_time() - float(tags[STARTED])) > 2.0
        return is_another or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def content_tags(direction: str, paths: Iterable[Path]) -> dict[str, str]:
    """`in:<path>` or `out:<path>` -> digest, for each path and, of a folder, everything in it.

    Stages read parts of what others wrote, and DVC tracks parts of what they wrote, so each level is named.
    """
    tags: dict[str, str] = {}
    for path in paths:
        tags |= {f"{direction}:{part}": value for part, value in tree_digests(path).items()}
    return tags


def tree_digests(path: Path) -> dict[str, str]:
    """Digests, as DVC's, of a file, or of a folder and all files and folders in it; each file is read once.

    Raises:
        ArtifactError: the path does not exist.
    """
    if not path.is_dir():
        return {path.as_posix(): digest(path)}
    inside = sorted(path.rglob("*"))
    files = {file: digest(file) for file in inside if file.is_file()}
    result = {file.as_posix(): value for file, value in files.items()}
    for folder in (path, *(entry for entry in inside if entry.is_dir())):
        entries = [
            {"md5": value, "relpath": file.relative_to(folder).as_posix()}
            for file, value in files.items()
            if folder in file.parents
        ]
        entries.sort(key=lambda entry: entry["relpath"])
        listing = json.dumps(entries).encode()
        result[folder.as_posix()] = hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    return result


def _git(*arguments: str) -> str:
    """What git prints, or nothing outside a repository and before its first commit."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


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
