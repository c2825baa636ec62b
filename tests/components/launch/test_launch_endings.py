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
from launched import ROOT, TWO, ChangeParams, descendants, is_running, wait_for
from ruamel.yaml import YAML
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from components import torchrun
from components.lost_ranks import LOST_STATUS
from components.place import Place
from components.processes import free_port
from components.torchrun import RankKilled, leave_message


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


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGKILL), (1, signal.SIGTERM)], ids=str)
def test_a_killed_rank_ends_the_others_and_is_named(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, rank: int, number: signal.Signals
) -> None:
    """Not the errors of those that it left alone, nor torchrun's summary. The flow is told to try once more."""
    change_params(compute=TWO, ppo={"iterations_per_cycle": 100_000})
    process = start("alignment", "--cycle", "1")
    assert wait_for(lambda: list(Place().work.glob("alignment-1-*/state/progress.json")), seconds=120), process.poll()
    others = descendants(process)
    (victim,) = (each for each in ranks_of(process) if each.environ()["RANK"] == str(rank))
    victim.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    before, error = errors.split("error: ")
    assert error.startswith("a process of the stage was killed, and the others were ended\n")
    assert f"rank {rank} of 2\n" in error and f"it was killed by {number.name}\n" in error
    why = "out of memory is the usual reason" if number is signal.SIGKILL else "somebody ended it"
    assert f"what to do: {why}" in error and "run the same command again" in error and len(error.splitlines()) == 5
    assert all(
        line.startswith(("warning: alignment: ", "ppo, iteration 1: ", "ppo, iteration 1, step 1: ", "ppo: cycle 1, "))
        for line in before.splitlines()
    ), errors
    assert (tmp_path / "status").read_text() == "2 again"
    assert wait_for(lambda: not any(map(is_running, others)), seconds=15), others


def test_a_rank_that_lost_another_is_not_the_killed_one_where_both_were_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun ends the rest by SIGTERM, too: one that has left word by then, and one that has not."""
    ended = {}
    for rank in (0, 1):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank)))
        if rank == 0:
            assert leave_message("error: another process of the stage is gone", LOST_STATUS)
        ended[rank] = ProcessFailure(rank, 1000 + rank, -signal.SIGTERM, str(tmp_path / str(rank)))
    found = torchrun._root(ended, 2)
    assert isinstance(found, RankKilled) and found.where == "rank 1 of 2"


def test_a_machine_that_is_lost_is_told_of(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two, amid training: the first sees none of its processes, but nobody answers."""
    config = YAML(typ="safe").load(ROOT / TWO["accelerate_config"])
    config |= {"num_machines": 2, "main_process_ip": "127.0.0.1", "main_process_port": free_port()}
    YAML(typ="safe").dump(config, tmp_path / "machines.yaml")
    change_params(compute={"accelerate_config": str(tmp_path / "machines.yaml")}, ppo={"iterations_per_cycle": 100_000})
    machines = []
    for number in range(2):
        monkeypatch.setenv("PET_NODE_RANK", str(number))
        monkeypatch.setenv("PROXIMAL_STATUS_FILE", str(tmp_path / f"status{number}"))
        machines.append(start("alignment", "--cycle", "1"))
    found = wait_for(lambda: list(Place().work.glob("alignment-1-*/state/progress.json")), seconds=300)
    assert found, [machine.poll() for machine in machines]
    for each in [machines[1], *descendants(machines[1])]:
        each.kill()
    _, errors = machines[0].communicate(timeout=120)
    assert machines[0].returncode == 2, errors
    assert "error: another process of the stage is gone\n  where:      rank 0 of 2\n" in errors, errors
    assert "Traceback" not in errors and (tmp_path / "status0").read_text() == "2"


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the two ranks, once they run the stage."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return [each for each in descendants(process) if "components.stage" in each.cmdline()]
    return []
