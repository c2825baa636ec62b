"""A real DVC project whose stages take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[2]

# A stage of the tiny project. It notes when it began and ended, and does what a real stage may do badly.
STAGE = """
import ctypes, json, os, psutil, signal, subprocess, sys, time
from pathlib import Path

ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it dies with its parent, as components.launch does

name, does = sys.argv[1], json.loads(sys.argv[2])
log = Path(os.environ.get("TINY_LOG", "log.jsonl"))

def note(event):
    with log.open("a") as file:
        entry = {"stage": name, "event": event, "time": time.time(), "pid": os.getpid()}
        entry["parent_run"] = os.environ.get("PROXIMAL_PARENT_RUN_ID")
        file.write(json.dumps(entry) + "\\n")

def tell(status):  # as components.launch does
    if "PROXIMAL_STATUS_FILE" in os.environ:
        Path(os.environ["PROXIMAL_STATUS_FILE"]).write_text(status)

tell("")
note("begin")
if does.get("detached_child"):  # as a training launcher starts its workers
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path("child.pid").write_text(str(child.pid))
if does.get("waits_once") and not Path("waited").exists():  # for a test that ends it
    Path("waited").touch()
    time.sleep(600)
while "waits_for" in does and not Path(does["waits_for"]).exists():
    time.sleep(0.1)
for line in does.get("prints", []):
    print(line, file=sys.stderr, end="", flush=True)
time.sleep(does.get("seconds", 0))
if "killed_once" in does and not Path("was_killed").exists():
    Path("was_killed").touch()
    os.kill(os.getpid(), 9)
if "kills_once" in does and not Path("was_killed").exists():  # the nearest above it whose command has this word
    Path("was_killed").touch()
    next(above for above in psutil.Process().parents() if does["kills_once"] in above.cmdline()).kill()
    time.sleep(600)
status = does.get("status", 0)
if status == 0:
    Path(f"{name}.out").write_text(does.get("writes", name + Path("params.yaml").read_text()))
note("end")
tell(str(status))
sys.exit(status)
"""


@dataclass(frozen=True)
class Tiny:
    """A DVC project of stages that take no time."""

    folder: Path

    def stages(self, **stages: dict[str, Any]) -> None:
        """Write dvc.yaml: each stage has `needs` (files, or stages by name) and what tests make it do."""
        described = {}
        for name, stage in stages.items():
            needs = [need if "/" in need or "." in need else f"{need}.out" for need in stage.pop("needs", [])]
            described[name] = {
                "cmd": f"exec python stage.py {name} '{json.dumps(stage)}'",
                "deps": needs,
                "outs": [f"{name}.out"],
            }
        YAML().dump({"stages": described}, self.folder / "dvc.yaml")

    def limit(self, **timeout_minutes: float) -> None:
        """Give stages of these names, which a pipeline has, so many minutes."""
        file = self.folder / "params.yaml"
        params = YAML().load(file)
        params["orchestration"]["timeout_minutes"].update(timeout_minutes)
        YAML().dump(params, file)

    def commit(self) -> str:
        """Commit everything and return the commit."""
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "state")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        return run_command("git", *identity, *arguments, folder=self.folder)

    def dvc(self, *arguments: str) -> str:
        return run_command(sys.executable, "-m", "dvc", *arguments, folder=self.folder)

    def log(self) -> list[dict[str, Any]]:
        """What the stages noted since the project was made."""
        file = self.folder / "log.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def began(self) -> list[str]:
        """The stages that began to run, in that order."""
        return [entry["stage"] for entry in self.log() if entry["event"] == "begin"]


def run_command(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def is_running(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be collected."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def longest_s() -> float:
    """How long anything may be left: 15 seconds on a machine that has no more to do than it has cores."""
    return 15.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
