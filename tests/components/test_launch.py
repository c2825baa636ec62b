"""The entry of every stage, as a real process: refusals, one or two ranks, and what is left when it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from components.config import Params
from components.config.accelerate import accelerate_config
from components.errors import ConfigError
from components.place import Place
from components.processes import free_port
from components.stages import perform
from components.torchrun import run_ranks

ROOT = Path(__file__).resolve().parents[2]
TWO = {"accelerate_config": "infra/accelerate/cpu_two_processes.yaml"}
SHARDED = {"accelerate_config": "infra/accelerate/cpu_fsdp_two_processes.yaml"}
ChangeParams = Callable[..., Params]


@pytest.fixture
def start(world: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m components.launch ...` in the world; whatever is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "components.launch", *arguments],
            env={"PROXIMAL_STATUS_FILE": str(tmp_path / "status"), **os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        for each in [*descendants(process), process]:
            each.kill()
        process.wait()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
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
    return sorted(path for path in folder.rglob("*") if path.is_file())


BAD = {
    "unknown key": ("sft", lambda text: text + "speed: 1\n", "speed"),
    "wrong type": ("sft", lambda text: text.replace("seed: 1", "seed: one", 1), "seed"),
    "impossible": ("sft", lambda text: text.replace("rollouts_per_iteration: 8", "rollouts_per_iteration: 9"), "ppo"),
    "not YAML": ("sft", lambda text: text + "{", "params.yaml"),
    "no file": ("sft", None, "params.yaml"),
    "no Accelerate config": ("sft", lambda text: text.replace("cpu.yaml", "tpu.yaml"), "compute.accelerate_config"),
    "cycle for SFT": ("sft --cycle 1", lambda text: text, "--cycle"),
    "no cycle": ("alignment", lambda text: text, "--cycle"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_params_end_in_one_message_and_status_2(start: Any, world: Path, tmp_path: Path, case: str) -> None:
    arguments, change, named = BAD[case]
    if change is None:
        Place().params.unlink()
    else:
        Place().params.write_text(change(Place().params.read_text()))
    before = files(world)
    process = start(*arguments.split())
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.startswith("error: ") and errors.count("error:") == 1 and named in errors
    assert "Traceback" not in errors and output == ""
    assert len(errors.splitlines()) <= 5
    assert files(world) == before
    assert (tmp_path / "status").read_text() == "2"


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        ("alignment --cycle 1", {"ppo": {"rollouts_per_iteration": 9, "minibatches": 3}}, "ppo.rollouts_per_iteration"),
        ("alignment --cycle 1", {"ppo": {"minibatches": 8, "microbatch_size": 1}}, "ppo.rollouts_per_iteration"),
        ("sft", {"sft": {"batch_size": 1, "microbatch_size": 1}}, "sft.batch_size"),
        ("sft", {"sft": {"batch_size": 3, "microbatch_size": 1}, "compute": SHARDED}, "sft.batch_size"),
        ("alignment --cycle 1", {"compute": SHARDED}, "distributed_type"),
        ("alignment --cycle 1", {"method": "dpo", "dpo": {"batch_size": 1}}, "dpo.batch_size"),
        (
            "alignment --cycle 1",
            {"method": "q_learning", "q_learning": {"batch_size": 1, "microbatch_size": 1}},
            "q_learning.batch_size",
        ),
    ],
    ids=[
        "rollouts",
        "minibatches of one",
        "batches of one",
        "shards of three",
        "policy in shards",
        "DPO",
        "Q-learning",
    ],
)
def test_work_that_two_processes_cannot_share_is_refused(
    start: Any, change_params: ChangeParams, arguments: str, changes: Any, named: str
) -> None:
    change_params(**{"compute": TWO} | changes)
    process = start(*arguments.split())
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and errors.count("error:") == 1 and named in errors, errors


def test_an_error_of_two_processes_is_told_once(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams
) -> None:
    change_params(compute=TWO)
    (Place().clean / "demonstrations.jsonl").unlink()
    before = files(world)
    process = start("sft")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.startswith("error: a data file is missing") and errors.count("error:") == 1, errors
    assert "Traceback" not in errors and output == ""
    assert files(world) == before
    assert (tmp_path / "status").read_text() == "2"


def same_weights(first: Path, second: Path) -> None:
    weights, others = load_file(first), load_file(second)
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "config", "changes"),
    [
        ("sft", TWO, {}),
        ("sft", SHARDED, {}),
        ("reward_model", TWO, {"reward_model": {"members": 2}}),
        ("reward_model", SHARDED, {"reward_model": {"members": 2}}),
        ("alignment --cycle 1", TWO, {}),
        ("alignment --cycle 1", TWO, {"method": "grpo"}),
        ("alignment --cycle 1", TWO, {"method": "rloo"}),
        ("alignment --cycle 1", TWO, {"method": "dpo"}),
        ("alignment --cycle 1", TWO, {"method": "best_of_n"}),
    ],
    ids=str,
)
def test_two_processes_give_what_one_gives(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, arguments: str, config: Any, changes: Any
) -> None:
    """The same weights and numbers, but for the order in which floats are added up."""
    stage = arguments.split()[0]
    if stage != "sft":
        perform(stage, change_params(**changes), Place(), 1 if stage == "alignment" else None)
    folder = Place().alignment / "1" if stage == "alignment" else Path("artifacts") / stage
    one = Path(shutil.copytree(folder, tmp_path / "one"))
    shutil.rmtree(folder)
    change_params(compute=config, **changes)
    process = start(*arguments.split())
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert (tmp_path / "status").read_text() == "0"
    assert [path.relative_to(folder) for path in files(folder)] == [path.relative_to(one) for path in files(one)]
    for weights in one.rglob("model.safetensors"):
        same_weights(weights, folder / weights.relative_to(one))
        if stage == "sft":  # a reward model's holds the mean and deviation of its scores
            assert (folder / "policy" / "config.json").read_bytes() == (one / "policy" / "config.json").read_bytes()
    found, expected = (json.loads((each / "metrics.json").read_text()) for each in (folder, one))
    if stage == "alignment":
        found, expected = found["validation"], expected["validation"]
        curves = (json.loads((each / "curve.json").read_text()) for each in (folder, one))
        for row, row_of_one in zip(*curves, strict=True):
            # At its first step DPO's policy is the reference: of margins of 0, rounding alone makes an accuracy.
            if changes == {"method": "dpo"} and row["iteration"] == 1:
                row["accuracy"] = row_of_one["accuracy"]
            assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-4)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_bfloat16_gives_the_same_bytes_again_and_others_than_float32(
    start: Any, world: Path, change_params: ChangeParams
) -> None:
    weights = []
    for config in ("cpu_bf16", "cpu_bf16", "cpu", "cpu_auto"):
        change_params(compute={"accelerate_config": f"infra/accelerate/{config}.yaml"})
        process = start("alignment", "--cycle", "1")
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        if config == "cpu_auto":
            picked = re.search("cpu_auto.yaml: mixed_precision auto is (bf16|no): this CPU has .*bf16", errors)
            assert picked, errors
        folder = Place().alignment / "1"
        weights.append((folder / "policy" / "model.safetensors").read_bytes())
        shutil.rmtree(folder)
    assert weights[0] == weights[1]
    assert weights[1] != weights[2]
    assert weights[3] == (weights[0] if picked[1] == "bf16" else weights[2])


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
    assert (tmp_path / "status").read_text() == ""  # begun, and ended by a signal
    assert wait_for(lambda: not any(map(is_running, workers)), seconds=15), workers
    (progress,) = Place().work.glob("alignment-1-*/state/progress.json")  # what was finished is still there
    assert json.loads(progress.read_text())["iteration"] >= 1


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
    assert errors.splitlines()[-1] == f"rank {rank} was killed by SIGKILL; out of memory is the usual reason"
    assert all(line.startswith(("alignment: ", "ppo: cycle 1, ")) for line in errors.splitlines()[:-1]), errors
    assert (tmp_path / "status").read_text() == ""  # begun, and ended by a signal
    assert wait_for(lambda: not any(map(is_running, others)), seconds=15), others


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the two ranks, once they run the stage."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return [each for each in descendants(process) if "components.stage" in each.cmdline()]
    return []


def test_two_machines_train_as_one(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two launchers, as on two machines that share a disk, told apart by torchrun's own variables."""
    one = Path(shutil.copytree(Place().sft, tmp_path / "one"))
    shutil.rmtree(Place().sft)
    config = YAML(typ="safe").load(ROOT / "infra/accelerate/cpu_two_processes.yaml")
    config |= {"num_machines": 2, "main_process_ip": "127.0.0.1", "main_process_port": free_port()}
    YAML(typ="safe").dump(config, tmp_path / "machines.yaml")
    change_params(compute={"accelerate_config": str(tmp_path / "machines.yaml")})
    machines = []
    for number in range(2):
        monkeypatch.setenv("PET_NODE_RANK", str(number))
        monkeypatch.setenv("PROXIMAL_STATUS_FILE", str(tmp_path / f"status{number}"))
        machines.append(start("sft"))
    for machine in machines:
        _, errors = machine.communicate(timeout=200)
        assert machine.returncode == 0, errors
    same_weights(one / "policy" / "model.safetensors", Place().sft / "policy" / "model.safetensors")


@pytest.mark.parametrize(
    ("environment", "changes", "named"),
    [
        ({"PET_NNODES": "3"}, {}, "PET_NNODES"),
        ({"PET_NPROC_PER_NODE": "4"}, {}, "PET_NPROC_PER_NODE"),
        ({}, {"num_machines": 2}, "main_process_ip"),
        ({"PET_MASTER_ADDR": "127.0.0.1"}, {"num_machines": 2}, "PET_MASTER_PORT"),
        ({}, {"num_machines": 2, "rdzv_backend": "c10d", "main_process_port": 29500}, "PET_RDZV_ENDPOINT"),
    ],
    ids=str,
)
def test_machines_that_cannot_meet_are_refused(
    environment: dict[str, str], changes: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = YAML(typ="safe").load(ROOT / "infra/accelerate/cpu_two_processes.yaml") | changes
    YAML(typ="safe").dump(config, tmp_path / "machines.yaml")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        run_ranks(accelerate_config(tmp_path / "machines.yaml"), "never_started", [])


def test_two_processes_of_two_threads_give_the_same_bytes_again(
    start: Any, world: Path, change_params: ChangeParams
) -> None:
    change_params(compute=TWO | {"cpu_threads": {"sft": 2}})
    weights = []
    for _ in range(2):
        shutil.rmtree(Place().sft)
        _, errors = start("sft").communicate(timeout=200)
        weights.append((Place().sft / "policy" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1], errors
