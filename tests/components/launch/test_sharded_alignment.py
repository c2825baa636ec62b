"""Alignment of a policy in shards (FSDP2 on gloo): two ranks give what one process gives; one launch for all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import FAULTY, ROOT, SHARDED, ChangeParams, files, run_planted
from ruamel.yaml import YAML
from safetensors.torch import load_file
from sharded_stages import INTERRUPTED, RESUMED, SFT

from components.artifacts import read_jsonl
from components.digests import digest
from components.errors import ConfigError
from components.place import Place
from components.stages import perform

# Shards of what rank 0 alone reads, and activations that are computed again.
FRUGAL = {"accelerate_config": "infra/accelerate/frugal.yaml"}
IN_STEP = SHARDED | {"gather_for_generation": False}
# What is measured makes three batches, of which one process takes two.
BATCHES = {"measurement": {"batch_size": 3}}
# Seven rollouts, and three pairs in batches of two.
ONLINE = {"prompts_per_iteration": 3, "responses_per_prompt": 3, "missing_eos": "none"}
STEPS = {"epochs": 10, "batch_size": 8, "microbatch_size": 4}
CASES: dict[str, dict[str, Any]] = {
    "ppo": {"compute": FRUGAL},
    "ppo in step": {"compute": IN_STEP},
    "ppo of gemma": {"compute": SHARDED},
    "dpo": {"compute": SHARDED, "method": "dpo"},
    "dpo in step": {"compute": IN_STEP, "method": "dpo", **BATCHES},
    "grpo in step": {"compute": IN_STEP, "method": "grpo"},
    "online dpo": {"compute": SHARDED, "method": "online_dpo", "online_dpo": ONLINE, **BATCHES},
    "online dpo in step": {"compute": IN_STEP, "method": "online_dpo"},
    "q_learning": {"compute": SHARDED, "method": "q_learning", **BATCHES},
    "q_learning in step": {"compute": IN_STEP, "method": "q_learning", **BATCHES},
    f"{INTERRUPTED}ppo": {"compute": FRUGAL},
    f"{INTERRUPTED}q_learning": {"compute": SHARDED, "method": "q_learning", **BATCHES},
    SFT: {"compute": FRUGAL, "sft": STEPS},
    f"{INTERRUPTED}{SFT}": {"compute": FRUGAL, "sft": STEPS},
}
RUN = """
import sys
from pathlib import Path
from components.config.accelerate import accelerate_config
from components.torchrun import run_ranks
run_ranks(accelerate_config(Path(sys.argv[1])), "sharded_stages", sys.argv[2:], meeting_s=60)
"""


@pytest.fixture(scope="module")
def world_of(
    trained_world: Path, trained_gemma_world: Path, gemma_params: dict[str, Any]
) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """The world that a case begins with, and what its params have beside the case's own."""
    return lambda case: (trained_gemma_world, gemma_params) if case.endswith("gemma") else (trained_world, {})


@pytest.fixture(scope="module")
def sharded(
    world_of: Callable[[str], tuple[Path, dict[str, Any]]],
    change_params: ChangeParams,
    tracking: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the world of each case after its stage, by two ranks."""
    folder = tmp_path_factory.mktemp("sharded")
    frugal = YAML(typ="safe").load(ROOT / SHARDED["accelerate_config"])
    frugal["fsdp_config"] |= {"fsdp_cpu_ram_efficient_loading": True, "fsdp_activation_checkpointing": True}
    for name, changes in CASES.items():
        world, of_world = world_of(name)
        shutil.copytree(world, folder / name)
        YAML(typ="safe").dump(frugal, folder / name / FRUGAL["accelerate_config"])
        with contextlib.chdir(folder / name):
            change_params(**changes, **of_world)
    paths = [str(ROOT), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": tracking}
    config = str(ROOT / SHARDED["accelerate_config"])
    command = [sys.executable, "-c", RUN, config, *(str(folder / name) for name in CASES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith(INTERRUPTED) and name != SFT])
def test_a_policy_in_shards_becomes_what_one_process_makes_of_it(
    sharded: Path,
    world_of: Callable[[str], tuple[Path, dict[str, Any]]],
    tracking: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change_params: ChangeParams,
    case: str,
) -> None:
    """But for the order in which floats are added up; by one writer, whole.

    The SFT policy is the same, and measured by both processes it has the records that one process makes, to the byte.
    """
    world, of_world = world_of(case)
    monkeypatch.chdir(shutil.copytree(world, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    changes = {name: value for name, value in CASES[case].items() if name != "compute"} | of_world
    perform("alignment", change_params(**changes), Place(), 1)
    one, found = Place().alignment / "1", sharded / case / Place().alignment / "1"
    assert [path.relative_to(found) for path in files(found)] == [path.relative_to(one) for path in files(one)]
    for weights in one.rglob("*.safetensors"):
        expected, whole = load_file(weights), load_file(found / weights.relative_to(one))
        assert expected.keys() == whole.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(whole[name], weight, rtol=0, atol=1e-5)
    rows, expected_rows = (json.loads((each / "curve.json").read_text()) for each in (found, one))
    assert len(rows) == len(expected_rows) == 3
    for row, row_of_one in zip(rows, expected_rows, strict=True):
        if (
            changes.get("method") in ("dpo", "online_dpo") and row["iteration"] == 1
        ):  # of margins of 0, rounding makes an accuracy
            row["accuracy"] = row_of_one["accuracy"]
        assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-5)
    records, expected_records = (read_jsonl(each / "validation.jsonl") for each in (found, one))
    of_start = [row for row in records if row["policy"] == "start"]
    assert len(of_start) == 8 and of_start == [row for row in expected_records if row["policy"] == "start"]
    assert [row["response"] for row in records] == [row["response"] for row in expected_records]
    before = load_file(Place().sft / "policy" / "model.safetensors")
    after = load_file(found / "policy" / "model.safetensors")
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-4  # it was trained


def test_both_processes_measure(sharded: Path) -> None:
    """Four responses an iteration and eight of each of two policies: in batches of three, or in one of eight."""
    asked = {
        case: [json.loads((sharded / case / f"asked_{rank}.json").read_text()) for rank in range(2)]
        for case in ("dpo in step", "dpo")
    }
    assert asked["dpo in step"] == [[3, 3, 3, 5, 5], [1, 1, 1, 3, 3]]
    assert asked["dpo"] == [[4, 4, 4, 8, 8], []]


@pytest.mark.parametrize("case", ["ppo", "q_learning"])
def test_an_interrupted_cycle_in_shards_goes_on_to_the_same_bytes(sharded: Path, case: str) -> None:
    unbroken, resumed = (sharded / name / "artifacts" / "alignment" / "1" for name in (case, f"{RESUMED}{case}"))
    assert not (sharded / f"{INTERRUPTED}{case}" / "artifacts" / "alignment").exists()
    assert digest(resumed) == digest(unbroken)


def test_an_interrupted_fit_in_shards_goes_on_to_the_same_bytes(sharded: Path) -> None:
    (folder,) = (path for path in (sharded / f"{INTERRUPTED}{SFT}" / ".work").iterdir() if path.is_dir())
    assert len(json.loads((folder / "curve.json").read_text())) == 5
    assert digest(sharded / f"{RESUMED}{SFT}" / "artifacts" / "sft") == digest(sharded / SFT / "artifacts" / "sft")


def test_a_killed_rank_loses_nothing_but_its_iteration(
    sharded: Path, trained_world: Path, tmp_path: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the third iteration; the same command goes on to the bytes of a cycle that nothing befell."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    world = Path(shutil.copytree(trained_world, tmp_path / "world"))
    for name in ("params.yaml", FRUGAL["accelerate_config"]):
        shutil.copy(sharded / "ppo" / name, world / name)
    status, errors = run_planted(world, tmp_path, FAULTY.format(fault="kill", iteration=2), "alignment", "--cycle", "1")
    assert status == 2 and "error: a process of the stage was killed" in errors, errors
    assert "rank 1 of 2\n" in errors and "killed by SIGKILL\n" in errors and "Traceback" not in errors
    status, errors = run_planted(world, tmp_path, "", "alignment", "--cycle", "1")
    assert status == 0 and "cycle 1 goes on after iteration 2" in errors, errors
    assert digest(world / Place().alignment / "1") == digest(sharded / "ppo" / Place().alignment / "1")


def test_another_number_of_processes_goes_on_only_if_asked(
    sharded: Path, tmp_path: Path, tracking: str, change_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, nothing is lost; asked, one process goes on with what two began, and ends where two end."""
    world = Path(shutil.copytree(sharded / f"{INTERRUPTED}ppo", tmp_path / "world"))
    monkeypatch.chdir(world)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    before = digest(Place().work)
    with pytest.raises(ConfigError, match="reshard_checkpoints: true") as refused:
        perform("alignment", change_params(), Place(), 1)
    assert "2 iterations of cycle 1" in str(refused.value) and "2 processes" in str(refused.value)
    assert digest(Place().work) == before
    perform("alignment", change_params(compute={"reshard_checkpoints": True}), Place(), 1)
    found, two = Place().alignment / "1", sharded / "ppo" / Place().alignment / "1"
    rows, expected = (json.loads((each / "curve.json").read_text()) for each in (found, two))
    assert rows[:2] == expected[:2] and rows[2] == pytest.approx(expected[2], rel=1e-3, abs=1e-5)
    for name, weight in load_file(two / "policy" / "model.safetensors").items():
        torch.testing.assert_close(load_file(found / "policy" / "model.safetensors")[name], weight, rtol=0, atol=1e-5)
    assert not any(Place().work.iterdir())
