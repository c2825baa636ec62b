"""Methods side by side: which runs are made, and what is not run twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

from components.config import METHODS
from components.errors import ConfigError
from components.interface.seeds import SEEDS
from flows.matrix import methods_there

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6}
SIDE = dict.fromkeys(("gold", "judge", "kl"), INTERVAL)
EVALUATION = {"sft": SIDE, "candidate": SIDE, "difference": SIDE, "win_rate": INTERVAL}
# Writes what `proximal run --figures` would, with the seed as the tokens that it took, and notes that it ran.
RUN = f"""
import json, os, sys
from pathlib import Path

method, seed, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with open(os.environ.get("TINY_LOG", "log.jsonl"), "a") as log:
    log.write(json.dumps({{"stage": f"{{method}}-{{seed}}", "event": "begin"}}) + "\\n")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps({{"evaluation": {EVALUATION}, "cost": {{"sampled_tokens": seed}}}}))
"""


def content(seed: int) -> dict[str, Any]:
    return {"evaluation": EVALUATION, "cost": {"sampled_tokens": seed}}


@pytest.fixture
def matrix(tiny: Tiny) -> Tiny:
    """A tiny project with four runs to compare, and a pipeline of its own that must not run."""
    tiny.stages(a={"needs": ["data/rows"]})
    (tiny.folder / "run.py").write_text(RUN)
    (tiny.folder / "compare").mkdir()
    figures = "artifacts/compare/${item.method}-${item.seed}.json"
    run = {
        "matrix": {"method": ["ppo", "dpo"], "seed": [1, 2]},
        "wdir": "..",
        "cmd": "python run.py ${item.method} ${item.seed} " + figures,
        "deps": ["data"],
        "metrics": [figures],
    }
    YAML().dump({"stages": {"run": run}}, tiny.folder / "compare" / "dvc.yaml")
    return tiny


@pytest.fixture
def run_compare(matrix: Tiny, prefect_api: str) -> Callable[..., Any]:
    from flows.compare import compare

    return lambda methods, seeds: compare(matrix.folder, methods, seeds, return_state=True).result(
        raise_on_failure=False
    )


def test_the_wanted_runs_are_made_once(matrix: Tiny, run_compare: Callable[..., Any]) -> None:
    assert run_compare(["ppo"], [2]) == {("ppo", 2): content(2)}
    assert matrix.began() == ["ppo-2"]
    figures = run_compare(["ppo", "dpo"], [2, 1])
    assert figures == {(method, seed): content(seed) for method in ("ppo", "dpo") for seed in (2, 1)}
    assert sorted(matrix.began()) == ["dpo-1", "dpo-2", "ppo-1", "ppo-2"]


def test_a_run_that_the_matrix_lacks_is_named(run_compare: Callable[..., Any]) -> None:
    failure = run_compare(["ppo"], [1, 7])
    assert isinstance(failure, ConfigError)
    assert failure.found == "ppo-7" and "dpo-2" in str(failure.expected)


def test_the_pipeline_of_the_repository_leaves_the_runs_alone(matrix: Tiny, run_flow: Callable[..., Any]) -> None:
    assert run_flow().result().stages == {"data.dvc": "unchanged", "a": "ran"}


def test_the_shipped_matrix_has_every_method_and_the_seeds_of_readme() -> None:
    stage = YAML(typ="safe").load(REPOSITORY / "compare" / "dvc.yaml")["stages"]["run"]
    assert set(stage["matrix"]["method"]) >= set(METHODS) - {"online_dpo"}  # measured on its own, see decisions/0005
    assert methods_there(REPOSITORY) == stage["matrix"]["method"]
    assert stage["matrix"]["seed"] == list(SEEDS)
    (metric,) = stage["metrics"]
    assert stage["cmd"].endswith(f"--figures {metric}") and metric.startswith("artifacts/compare/")


def test_the_command_answers_in_json_with_paths_from_below_the_root(matrix: Tiny, prefect_api: str) -> None:
    below = matrix.folder / "compare"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "compare", "--method", "dpo", "--seed", "2", "--json"],
        cwd=below,
        env={**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["runs"] == [{"method": "dpo", "seed": 2, **content(2)}]
    assert told["plot"] == "../artifacts/compare/comparison.png" and (below / told["plot"]).exists()
    assert matrix.began() == ["dpo-2"]
