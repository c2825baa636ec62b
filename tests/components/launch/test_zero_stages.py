"""Stages by DeepSpeed's ZeRO on two ranks give what one process gives; one launch for all.

Skipped where DeepSpeed is not installed (`make test-deepspeed` has it).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import ROOT, ChangeParams, files
from ruamel.yaml import YAML
from safetensors.torch import load_file
from sharded_stages import INTERRUPTED, RESUMED, SFT
from test_sharded_alignment import RUN, STEPS

from components.digests import digest
from components.place import Place
from components.stages import perform

pytestmark = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")

ZERO3 = {"accelerate_config": "infra/accelerate/cpu_zero3_two_processes.yaml"}
ZERO2 = {"accelerate_config": "infra/accelerate/zero2.yaml"}
CASES: dict[str, dict[str, Any]] = {
    "sft": {"compute": ZERO3},
    "sft by ZeRO-2": {"compute": ZERO2},
    "reward_model": {"compute": ZERO3},
    "ppo": {"compute": ZERO3},
    "ppo by ZeRO-2": {"compute": ZERO2},
    "ppo in step": {"compute": ZERO3 | {"gather_for_generation": False}},
    "dpo": {"compute": ZERO3, "method": "dpo"},
    "grpo by ZeRO-2": {"compute": ZERO2, "method": "grpo"},
    "sft of more steps": {"compute": ZERO3, "sft": STEPS},
    f"{INTERRUPTED}ppo": {"compute": ZERO3},
    f"{INTERRUPTED}{SFT}": {"compute": ZERO3, "sft": STEPS},
}


@pytest.fixture(scope="module")
def sharded(
    trained_world: Path, change_params: ChangeParams, tracking: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the world of each case after its stage, by two ranks."""
    folder = tmp_path_factory.mktemp("zero")
    config = YAML(typ="safe").load(ROOT / ZERO3["accelerate_config"])
    config["deepspeed_config"]["zero_stage"] = 2
    for name, changes in CASES.items():
        shutil.copytree(trained_world, folder / name)
        YAML(typ="safe").dump(config, folder / name / ZERO2["accelerate_config"])
        with contextlib.chdir(folder / name):
            change_params(**changes)
            if (stage := name.removeprefix(INTERRUPTED).partition(" ")[0]) in ("sft", "reward_model"):
                shutil.rmtree(Path("artifacts", stage))
    paths = [str(ROOT), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": tracking}
    command = [
        sys.executable,
        "-c",
        RUN,
        str(ROOT / ZERO3["accelerate_config"]),
        *(str(folder / name) for name in CASES),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", [name for name in CASES if INTERRUPTED not in name and "sft" not in CASES[name]])
def test_a_stage_by_zero_becomes_what_one_process_makes_of_it(
    sharded: Path, world: Path, change_params: ChangeParams, case: str
) -> None:
    """But for the order in which floats are added up; by one writer, whole."""
    changes = {name: value for name, value in CASES[case].items() if name != "compute"}
    params, stage = change_params(**changes), case.partition(" ")[0]
    one = Path("artifacts", stage)
    if stage not in ("sft", "reward_model"):  # these the world has
        perform("alignment", params, Place(), 1)
        one = Place().alignment / "1"
    found = sharded / case / one
    assert [path.relative_to(found) for path in files(found)] == [path.relative_to(one) for path in files(one)]
    for weights in one.rglob("*.safetensors"):
        expected, whole = load_file(weights), load_file(found / weights.relative_to(one))
        assert expected.keys() == whole.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(whole[name], weight, rtol=0, atol=1e-4)
    if one.parent != Place().alignment:
        return
    rows, expected_rows = (json.loads((each / "curve.json").read_text()) for each in (found, one))
    assert len(rows) == len(expected_rows) == 3
    for row, row_of_one in zip(rows, expected_rows, strict=True):
        if changes.get("method") == "dpo" and row["iteration"] == 1:  # of margins of 0, rounding makes an accuracy
            row["accuracy"] = row_of_one["accuracy"]
        assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-4)
    before = load_file(Place().sft / "policy" / "model.safetensors")
    after = load_file(found / "policy" / "model.safetensors")
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-4  # it was trained


@pytest.mark.parametrize(
    ("unbroken", "stage", "out"), [("ppo", "ppo", "alignment/1"), ("sft of more steps", SFT, "sft")], ids=str
)
def test_an_interrupted_stage_by_zero_goes_on_to_the_same_bytes(
    sharded: Path, unbroken: str, stage: str, out: str
) -> None:
    assert not (sharded / f"{INTERRUPTED}{stage}" / "artifacts" / out).exists()
    resumed, expected = (sharded / name / "artifacts" / out for name in (f"{RESUMED}{stage}", unbroken))
    assert digest(resumed) == digest(expected)
