"""Q-learning as the stage alignment runs it: two cycles, two processes, and its policy in the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.artifacts import read_json
from components.config import Params
from components.digests import digest
from components.engines.answering import Answerer
from components.models.guided import GuidedPolicy
from components.models.loading import load_policy
from components.place import Place
from components.stages import perform
from components.tracking import stage_run
from components.tracking.recorder import RecordedRun
from components.tracking.registration import register
from components.tracking.registry import fetch_policy

ROOT = Path(__file__).resolve().parents[4]
ChangeParams = Callable[..., Params]
FILES = ("checks.json", "curve.json", "metrics.json", "validation.jsonl")


def test_two_cycles_are_stored_and_measured_as_guided_policies(world: Path, change_params: ChangeParams) -> None:
    params = change_params(method="q_learning")
    perform("alignment", params, Place(), 1)
    perform("alignment", params, Place(), 2)
    for cycle in ("1", "2"):
        folder = Place().alignment / cycle
        assert {path.name for path in folder.iterdir()} == {"policy", "state", *FILES}
        policy = load_policy(folder / "policy")
        assert isinstance(policy, GuidedPolicy) and policy.decode_beta == params.q_learning.decode_beta
        state = {path.name for path in (folder / "state").iterdir()}
        assert state == {"q_heads.safetensors", "progress.json"}
    curves = [read_json(Place().alignment / cycle / "curve.json") for cycle in ("1", "2")]
    assert [row["iteration"] for rows in curves for row in rows] == [1, 2, 3, 4, 5, 6]
    metrics = read_json(Place().alignment / "2" / "metrics.json")
    assert metrics["cost"]["trained_tokens"] == sum(row["trained_tokens"] for row in curves[1]) > 0
    assert abs(metrics["validation"]["kl"]) > 1e-4


def test_two_processes_give_what_one_gives(world: Path, tmp_path: Path, change_params: ChangeParams) -> None:
    """The same weights and numbers, but for the order in which floats are added up."""
    perform("alignment", change_params(method="q_learning"), Place(), 1)
    folder = Place().alignment / "1"
    one = Path(shutil.copytree(folder, tmp_path / "one"))
    shutil.rmtree(folder)
    change_params(method="q_learning", compute={"accelerate_config": "infra/accelerate/cpu_two_processes.yaml"})
    command = [sys.executable, "-m", "components.launch", "alignment", "--cycle", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    files = [sorted(path.relative_to(each) for path in each.rglob("*") if path.is_file()) for each in (one, folder)]
    assert files[0] == files[1]
    for file in ("policy/model", "policy/q_heads", "state/q_heads"):
        weights, weights_of_one = (load_file(each / f"{file}.safetensors") for each in (folder, one))
        for name, weight in weights_of_one.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-4)
    curves = [read_json(each / "curve.json") for each in (folder, one)]
    for row, row_of_one in zip(*curves, strict=True):
        assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-3)


def test_the_registry_keeps_a_guided_policy_whole(world: Path, change_params: ChangeParams) -> None:
    import mlflow.pyfunc

    params = change_params(method="q_learning", q_learning={"iterations_per_cycle": 1, "head_learning_rate": 0.05})
    perform("alignment", params, Place(), 1)
    policy = Place().alignment / "1" / "policy"
    answering: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_response_tokens": 6}
    with stage_run("promotion", params, [policy]) as tracked:
        assert isinstance(tracked, RecordedRun)
        version = register(tracked.run_id, "guided", policy, {}, answering)
    assert digest(fetch_policy(version, world / "fetched")) == digest(policy)
    prompts = ["My printer counts to seven. What is wrong with it?"] * 8
    expected = Answerer(policy).answer(prompts, **answering)
    assert mlflow.pyfunc.load_model(f"models:/guided/{version.number}").predict(prompts) == expected
