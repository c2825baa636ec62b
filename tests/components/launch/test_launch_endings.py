"""What is left when the launcher or one of its ranks is ended: no process, and one message."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from launched import TWO, ChangeParams, descendants, is_running, wait_for

from components.place import Place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_launchers_end_is_the_end_of_its_processes(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, number: signal.Signals
) -> None:
    """In the midst of training, while two ranks talk to each other."""
    change_params(compute=TWO, ppo={"iterations_per_cycle": 100_000})
    process = start("alignment", "--cycle", "1")
    assert wait_for(lambda: list(Place().work.glob("alignment-1-*/state/progress.json")), seconds=120), process.poll()
    workers = descendants(process)
    assert len(workers) >= 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == f"ended by {number.name}" and "Traceback" not in errors
    assert (tmp_path / "status").read_text() == str(128 + number)
    assert wait_for(lambda: not any(map(is_running, workers)), seconds=15), workers
    (progress,) = Place().work.glob("alignment-1-*/state/progress.json")  # what was finished is still there
    assert json.loads(progress.read_text())["iteration"] >= 1


def test_a_stage_that_somebody_ends_says_by_which_signal(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams
) -> None:
    """One process: the flow, and MLflow, are told that it was no fault of the stage's."""
    change_params(ppo={"iterations_per_cycle": 100_000})
    process = start("alignment", "--cycle", "1")
    assert wait_for(lambda: list(Place().work.glob("alignment-1-*/state/progress.json")), seconds=120), process.poll()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors
    assert (tmp_path / "status").read_text() == str(128 + signal.SIGTERM)


def test_a_killed_launcher_leaves_no_process(start: Any, world: Path, change_params: ChangeParams) -> None:
    """SIGKILL leaves the launcher, which is torchrun's agent, no time to end anything."""
    change_params(compute=TWO, sft={"epochs": 100_000})
    process = start("sft")
    ranks = wait_for(lambda: found if len(found := ranks_of(process)) == 2 else None, seconds=120)
    others = descendants(process)
    assert ranks
    process.kill()
    process.wait()
    assert wait_for(lambda: not any(map(is_running, others)), seconds=15), others


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_is_named(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, rank: int
) -> None:
    """Not the errors of those that it left alone, nor torchrun's summary."""
    change_params(compute=TWO, ppo={"iterations_per_cycle": 100_000})
    process = start("alignment", "--cycle", "1")
    assert wait_for(lambda: list(Place().work.glob("alignment-1-*/state/progress.json")), seconds=120), process.poll()
    others = descendants(process)
    (victim,) = (each for each in ranks_of(process) if each.environ()["RANK"] == str(rank))
    victim.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    said = f"rank {rank} was killed by SIGKILL; out of memory is the usual reason; lower microbatch_size"
    assert errors.splitlines()[-1].startswith(said)
    assert all(
        line.startswith(("warning: alignment: ", "ppo, iteration 1: ", "ppo, iteration 1, step 1: ", "ppo: cycle 1, "))
        for line in errors.splitlines()[:-1]
    ), errors
    assert (tmp_path / "status").read_text() == str(128 + signal.SIGKILL)
    assert wait_for(lambda: not any(map(is_running, others)), seconds=15), others


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the two ranks, once they run the stage."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return [each for each in descendants(process) if "components.stage" in each.cmdline()]
    return []
