"""What a run may compute: a stage that would pass it, by the guess of `proximal plan`, does not begin."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.config import Params
from components.config.accelerate import accelerate_config
from components.config.shares import SHARED_STAGES
from components.errors import ConfigError
from flows.environment import stage_environment

_SECONDS_AN_HOUR = 3600.0
_PARTS = ("sampling", "passing", "training")  # of plan's seconds

logger = logging.getLogger("prefect.proximal")


class OverBudget(ConfigError):
    """A stage that may not begin."""


class RunBudget:
    """What one run has spent so far, in device-hours: processes x hours, of stages that run side by side of each.

    Args:
        folder: where the run works: the guesses are those of its params and rows.
    """

    def __init__(self, params: Params, folder: Path) -> None:
        self._limits, self._folder = params.orchestration.budget, folder
        self._processes = accelerate_config(folder / params.compute.accelerate_config).num_processes
        self._lock = threading.Lock()
        self._spent = 0.0
        self._at_work: dict[str, float] = {}  # what stages that have begun may take
        self._guesses: dict[str, float] | None = None

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Spend what the block takes.

        Raises:
            OverBudget: it may not begin, for it would pass the budget; or nobody can guess what it takes.
        """
        if self._limits.hours is None:
            yield
            return
        self._begin(stage)
        began = time.monotonic()
        try:
            yield
        finally:
            took = self._device_hours(stage, time.monotonic() - began)
            with self._lock:
                del self._at_work[stage]
                self._spent += took

    def _begin(self, stage: str) -> None:
        limits, limit = self._limits, self._limits.hours
        assert limit is not None
        with self._lock:
            guess = self._guess(stage)
            gone = self._spent + sum(self._at_work.values())
            if gone + guess > limit or gone >= limit:
                key = "device_hours" if limits.cost is None else "cost"
                raise OverBudget(
                    "the stage would pass the budget of the run, and has not begun",
                    where=f"orchestration.budget.{key} in params.yaml",
                    expected=f"at most {limits.told(limit)} in one run",
                    found=f"{limits.told(gone)} are spent or promised to stages at work, and {stage} would take "
                    f"{limits.told(guess)} by the guess of `proximal plan --device {limits.device}`",
                    do="raise it, or make the stage smaller: what is done is kept; every run counts anew",
                )
            self._at_work[stage] = guess

    def _guess(self, stage: str) -> float:
        """Of a stage that computes with a model; the others take next to nothing."""
        name, _, cycle = stage.partition("@")
        if name not in SHARED_STAGES:
            return 0.0
        if self._guesses is None:
            self._guesses = self._plan()
        if self._guesses is None:
            logger.warning("the budget: nobody can tell yet what %s takes; it counts once it has run", stage)
            return 0.0
        return self._guesses.get(f"{name} {cycle}" if cycle else name, 0.0)

    def _plan(self) -> dict[str, float] | None:
        """Device-hours by plan's names of stages; None as long as there are no tokenised rows.

        Raises:
            OverBudget: plan cannot guess with these params.
        """
        # Of another process: it needs torch.
        command = [sys.executable, "-m", "flows.cli", "plan", "--json", "--device", self._limits.device]
        done = subprocess.run(
            command, cwd=self._folder, env=stage_environment({}), capture_output=True, text=True, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else None
        if found is None or (found["tokens"] and not found["seconds"]):
            raise OverBudget(
                "nobody can guess what the stages of this run take, which its budget asks for",
                where="orchestration.budget.device in params.yaml",
                expected="cpu, or a GPU whose speed `proximal plan --device` knows",
                found=f"{self._limits.device}: no times" if found else done.stderr.strip(),
                do="name such a device, or leave the budget out: device_hours: null, cost: null",
            )
        if not found["tokens"]:
            return None
        return {
            each["stage"]: self._device_hours(each["stage"].split()[0], sum(each[part] for part in _PARTS))
            for each in found["seconds"]
        }

    def _device_hours(self, stage: str, seconds: float) -> float:
        processes = self._processes if stage.partition("@")[0] in SHARED_STAGES else 1
        return processes * seconds / _SECONDS_AN_HOUR
