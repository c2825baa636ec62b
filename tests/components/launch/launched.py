"""What tests of the launcher look at: its processes and the files of the world."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from components.config import Params

ROOT = Path(__file__).resolve().parents[3]
TWO = {"accelerate_config": "infra/accelerate/cpu_two_processes.yaml"}
SHARDED: dict[str, Any] = {"accelerate_config": "infra/accelerate/cpu_fsdp_two_processes.yaml"}
ChangeParams = Callable[..., Params]
# For `run_planted`: what befalls the second rank in an iteration, counted from 0.
FAULTY = """
import os
if os.environ.get("RANK") == "1":
    import signal
    import torch
    from components.alignment.policy_gradient.update import Updater
    real = Updater.update

    def faulty(updater, *arguments):
        if arguments[-1] == {iteration} and "{fault}" == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if arguments[-1] == {iteration}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(updater, *arguments)

    Updater.update = faulty
"""


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that it started, and those that they started."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_running(process: psutil.Process) -> bool:
    """Whether it is there and not merely waiting to be collected."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of the condition, or its last one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def files(folder: Path) -> list[Path]:
    """All files below the folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def run_planted(world: Path, tmp_path: Path, plant: str, *arguments: str) -> tuple[int, str]:
    """Exit status and errors of a launch in whose processes code is planted, read by every Python that starts."""
    planted = tmp_path / "planted"
    planted.mkdir(exist_ok=True)
    (planted / "sitecustomize.py").write_text(plant)
    ended = subprocess.run(
        [sys.executable, "-m", "components.launch", *arguments],
        cwd=world,
        env={**os.environ, "PYTHONPATH": f"{planted}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stderr
