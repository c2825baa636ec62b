"""Where a run comes from: the commit, the pinned data, the params, the process, and the digests of files."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from components.config import Params
from components.digests import digest_of_values, tree_digests
from components.tracking.dvc_files import pinned_data

_STATUS = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude,glob)**/dvc.lock")
PIPELINE = "pipeline"  # the `stage` of a whole pipeline's run
HOST, PID, STARTED = "process_host", "process_pid", "process_started"


def provenance_tags(params: Params, root: Path) -> dict[str, str]:
    """Tags that every run carries: commit, data, params, flow run and process.

    Args:
        root: of the repository.
    """
    commit = commit_of(root)
    return {
        "git_commit": commit or "none",
        # Without dvc.lock: a run writes it, and it says what came out, not what went in.
        "git_dirty": str(bool(_git(root, *_STATUS))).lower(),
        "mlflow.source.git.commit": commit,
        "data_md5": pinned_data(root) or "none",
        "params_sha256": digest_of_values(params.model_dump(mode="json", exclude={"orchestration"})),
        "prefect_flow_run_id": os.environ.get("PROXIMAL_FLOW_RUN_ID", ""),
        HOST: socket.gethostname(),
        PID: str(os.getpid()),
        STARTED: str(psutil.Process().create_time()),
    }


def pipeline_tags(params: Params, root: Path) -> dict[str, str]:
    """What every pipeline's run says of itself, whoever runs it."""
    return {"stage": PIPELINE, "method": params.method, "seed": str(params.seed), **provenance_tags(params, root)}


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


def content_digests(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Digests of each path and, of a folder, of everything in it; paths are named from `root` on.

    Stages read parts of what others wrote, and DVC tracks parts of what they wrote, so each level is named.
    """
    return {
        (part.relative_to(root) if part.is_relative_to(root) else part).as_posix(): value
        for path in paths
        for part, value in tree_digests(path).items()
    }


def commit_of(root: Path) -> str:
    """The commit that is checked out; empty where there is none."""
    return _git(root, "rev-parse", "HEAD")


def _git(root: Path, *arguments: str) -> str:
    """What git prints, or nothing outside a repository and before its first commit."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
