"""Methods side by side: which runs are made, what is not run twice, and the table."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

from components.config import METHODS
from components.errors import ConfigError
from components.interface.seeds import SEEDS

# Writes what `proximal run --figures` would, with the seed as gold, and notes that it ran.
RUN = """
import json, sys
from pathlib import Path

method, seed, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with open("log.jsonl", "a") as log:
    log.write(json.dumps({"stage": f"{method}-{seed}", "event": "begin"}) + "\\n")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps({"gold": seed}))
"""


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
    assert run_compare(["ppo"], [2]) == {("ppo", 2): {"gold": 2}}
    assert matrix.began() == ["ppo-2"]
    figures = run_compare(["ppo", "dpo"], [2, 1])
    assert figures == {(method, seed): {"gold": seed} for method in ("ppo", "dpo") for seed in (2, 1)}
    assert sorted(matrix.began()) == ["dpo-1", "dpo-2", "ppo-1", "ppo-2"]


def test_a_run_that_the_matrix_lacks_is_named(run_compare: Callable[..., Any]) -> None:
    failure = run_compare(["ppo"], [1, 7])
    assert isinstance(failure, ConfigError)
    assert failure.found == "ppo-7" and "dpo-2" in str(failure.expected)


def test_the_pipeline_of_the_repository_leaves_the_runs_alone(matrix: Tiny, run_flow: Callable[..., Any]) -> None:
    assert run_flow().result().stages == {"data.dvc": "unchanged", "a": "ran"}


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def figures(gold: float, kl: float, **cost: float) -> dict[str, Any]:
    sft = {"gold": interval(0.5), "judge": interval(0.0), "kl": interval(0.0)}
    candidate = {"gold": interval(gold), "judge": interval(1.0), "kl": interval(kl)}
    difference = {name: interval(candidate[name]["mean"] - sft[name]["mean"]) for name in sft}
    evaluation = {"sft": sft, "candidate": candidate, "difference": difference, "win_rate": interval(0.75)}
    return {"evaluation": evaluation, "cost": cost}


def test_the_table_has_a_column_a_method_and_is_markdown() -> None:
    from flows.compare import comparison_tables

    ppo = figures(0.7, 2.0, sampled_tokens=12_000, trained_tokens=50_000, seconds=61.4)
    best_of_n = figures(0.6, 0.5, sampled_tokens=0, trained_tokens=0)  # trained where another store has the run
    first, second = comparison_tables({("ppo", 1): ppo, ("best_of_n", 1): best_of_n, ("ppo", 2): ppo})
    console = Console(width=200, file=StringIO(), record=True)
    console.print(first)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "| | SFT | ppo | best_of_n |" in lines
    assert "| Gold | 0.500 [0.450, 0.550] | 0.700 [0.650, 0.750] | 0.600 [0.550, 0.650] |" in lines
    assert "| Gold, gain per nat | | +0.100 | +0.200 |" in lines
    assert "| Tokens sampled | | 12,000 | 0 |" in lines
    assert "| Seconds of training | | 61 | |" in lines
    assert len(second.columns) == 3


@pytest.mark.parametrize("hidden", [(), ("gold",)])
def test_the_plot_has_a_point_a_run_and_an_axis_that_says_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
    from matplotlib.figure import Figure

    from flows.comparison_plot import draw_comparison

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **named: (drawn.append(self), save(self, *args, **named))
    )
    runs = {("ppo", 1): figures(0.7, 2.0), ("dpo", 1): figures(0.6, 1.0), ("ppo", 2): figures(0.65, 1.5)}
    for content in runs.values():
        for side in ("sft", "candidate"):
            for name in hidden:
                del content["evaluation"][side][name]
    draw_comparison(runs, tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")
    (axis,) = drawn[0].axes
    points = {(float(bar[0].get_xdata()[0]), float(bar[0].get_ydata()[0])) for bar in axis.containers}
    assert points == ({(2.0, 1.0), (1.0, 1.0), (1.5, 1.0)} if hidden else {(2.0, 0.7), (1.0, 0.6), (1.5, 0.65)})
    assert axis.get_ylabel().startswith("Judge" if hidden else "Gold")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["ppo", "dpo", "SFT", "seed 1", "seed 2"]


def test_the_shipped_matrix_has_every_method_and_the_seeds_of_readme() -> None:
    stage = YAML(typ="safe").load(REPOSITORY / "compare" / "dvc.yaml")["stages"]["run"]
    assert set(stage["matrix"]["method"]) == set(METHODS)
    assert stage["matrix"]["seed"] == list(SEEDS)
    (metric,) = stage["metrics"]
    assert stage["cmd"].endswith(f"--figures {metric}") and metric.startswith("artifacts/compare/")
