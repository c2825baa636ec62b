"""What launched stages write: two ranks or machines give what one gives, and the same bytes again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import ROOT, SHARDED, TWO, ChangeParams, files
from ruamel.yaml import YAML
from safetensors.torch import load_file

from components.artifacts import write_json
from components.place import Place
from components.processes import free_port
from components.stages import perform

# Nine rollouts and three pairs in batches of two: one process has no pair in the last batch.
UNEVEN = {"prompts_per_iteration": 3, "responses_per_prompt": 3, "missing_eos": "none"}


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
        ("alignment --cycle 1", TWO, {"method": "online_dpo", "online_dpo": UNEVEN}),
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
            if changes.get("method") in ("dpo", "online_dpo") and row["iteration"] == 1:
                row["accuracy"] = row_of_one["accuracy"]
            assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-4)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_an_evaluation_by_two_processes_has_the_bytes_of_one(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams
) -> None:
    """Six responses of each policy, in batches of four: one process has two of them. The page shows the params."""
    settings = {
        "method": "best_of_n",
        "cycles": {"1": {"start": "artifacts/sft"}},
        "measurement": {"batch_size": 4},
        "promotion": {"min_prompts": 2},
    }
    params = change_params(**settings)
    write_json(Place().data_validation / "report.json", {"prompts": {"rows": 18}, "warnings": 0, "checks": []})
    for stage, cycle in (("alignment", 1), ("selection", None), ("evaluation", None)):
        perform(stage, params, Place(), cycle)
    one = Path(shutil.copytree(Place().evaluation, tmp_path / "one"))
    shutil.rmtree(Place().evaluation)
    change_params(compute=TWO, **settings)
    _, errors = (process := start("evaluation")).communicate(timeout=200)
    assert process.returncode == 0, errors
    assert [path.relative_to(Place().evaluation) for path in files(Place().evaluation)] == [
        path.relative_to(one) for path in files(one)
    ]
    for path in files(one):
        if path.name != "report.html":
            assert (Place().evaluation / path.relative_to(one)).read_bytes() == path.read_bytes(), path
    assert len((one / "records.jsonl").read_text().splitlines()) == 12


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


def test_two_machines_train_as_one(
    start: Any, world: Path, tmp_path: Path, change_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two launchers, as on two machines that share a disk, told apart by torchrun's own variables; a shard on each."""
    one = Path(shutil.copytree(Place().sft, tmp_path / "one"))
    shutil.rmtree(Place().sft)
    config = YAML(typ="safe").load(ROOT / SHARDED["accelerate_config"])
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
