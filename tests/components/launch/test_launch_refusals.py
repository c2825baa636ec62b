"""What cannot run is refused by the launcher with one message, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from launched import ROOT, SHARDED, TWO, ChangeParams, files
from ruamel.yaml import YAML

from components.config.accelerate import accelerate_config
from components.errors import ConfigError
from components.place import Place
from components.processes import free_port
from components.torchrun import run_ranks

ADAPTED = {
    "checkpoint": "base",
    "adapter": {"kind": "lora", "rank": 2, "alpha": 2, "target_modules": "all-linear"},
}
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
        (
            "alignment --cycle 1",
            {"ppo": {"rollouts_per_iteration": 12, "minibatches": 4}, "compute": SHARDED},
            "minibatches * num_processes",
        ),
        ("sft", {"language_model": ADAPTED, "compute": SHARDED}, "language_model.adapter"),
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
        "shards of a minibatch",
        "base in shards",
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize("config", ["gpu", "gpu_eight"])
def test_gpus_that_are_not_here_are_told_once(
    start: Any, world: Path, change_params: ChangeParams, config: str
) -> None:
    """By the stage itself too, which may run on another machine than the command: one process, or for all ranks."""
    change_params(compute={"accelerate_config": f"infra/accelerate/{config}.yaml"}, sft={"batch_size": 8})
    before = files(world)
    process = start("sft")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.startswith("error: the Accelerate config asks for GPUs that are not here"), errors
    assert errors.count("error:") == 1 and "Traceback" not in errors and output == ""
    assert files(world) == before


def test_an_error_of_two_processes_is_told_once(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams
) -> None:
    change_params(compute=TWO)
    (Place().clean / "demonstrations.jsonl").unlink()
    before = files(world)
    process = start("sft")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.startswith("error: an input is missing") and errors.count("error:") == 1, errors
    assert "Traceback" not in errors and output == ""
    assert files(world) == before
    assert (tmp_path / "status").read_text() == "2"


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
        run_ranks(accelerate_config(tmp_path / "machines.yaml"), "never_started", [], meeting_s=60)


@pytest.mark.parametrize(("rank", "from_environment"), [(0, False), (1, True)])
def test_machines_that_do_not_meet_are_told_of(
    start: Any,
    world: Path,
    tmp_path: Path,
    change_params: ChangeParams,
    monkeypatch: pytest.MonkeyPatch,
    rank: int,
    from_environment: bool,
) -> None:
    """Each of two machines waits for another that never comes, as long as params say, or torchrun's own variable."""
    config = YAML(typ="safe").load(ROOT / SHARDED["accelerate_config"])
    config |= {"num_machines": 2, "machine_rank": rank, "main_process_ip": "127.0.0.1"}
    YAML(typ="safe").dump(config | {"main_process_port": free_port()}, tmp_path / "machines.yaml")
    limit = 600 if from_environment else 2
    change_params(
        compute={"accelerate_config": str(tmp_path / "machines.yaml")},
        orchestration={"meeting_timeout_seconds": limit},
    )
    if from_environment:
        monkeypatch.setenv("PET_RDZV_CONF", "timeout=2")
    before = files(Place().alignment.parent)
    process = start("alignment", "--cycle", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert errors.startswith("error: the machines do not find each other\n") and len(errors.splitlines()) == 5, errors
    told = (
        "the time of PET_RDZV_CONF (timeout=2)" if from_environment else "2 s (orchestration.meeting_timeout_seconds)"
    )
    assert f"2 machines that begin this stage within {told}, and a free port" in errors, errors
    assert "main_process_ip, main_process_port and machine_rank" in errors
    assert files(Place().alignment.parent) == before
