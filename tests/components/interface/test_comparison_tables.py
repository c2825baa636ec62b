"""Methods side by side: the table and the plot, from figures made up by hand."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from components.interface.comparison_plot import draw_comparison
from components.interface.comparison_tables import comparison_tables


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def figures(gold: float, kl: float, **cost: float) -> dict[str, Any]:
    sft = {"gold": interval(0.5), "judge": interval(0.0), "kl": interval(0.0)}
    candidate = {"gold": interval(gold), "judge": interval(1.0), "kl": interval(kl)}
    difference = {name: interval(candidate[name]["mean"] - sft[name]["mean"]) for name in sft}
    evaluation = {"sft": sft, "candidate": candidate, "difference": difference, "win_rate": interval(0.75)}
    return {"evaluation": evaluation, "cost": cost}


def test_the_table_has_a_column_a_method_and_is_markdown() -> None:
    ppo = figures(0.7, 2.0, sampled_tokens=12_000, trained_tokens=50_000, seconds=61.4)
    best_of_n = figures(0.6, 0.5, sampled_tokens=0, trained_tokens=0)  # trained where another store has the run
    first, second = comparison_tables({("ppo", 1): ppo, ("best_of_n", 1): best_of_n, ("ppo", 2): ppo})
    console = Console(width=200, file=StringIO(), record=True)
    console.print(first)
    lines = [" ".join(line.split()) for line in console.export_text(clear=True).splitlines()]
    assert "| | SFT | ppo | best_of_n |" in lines
    assert "| Gold | 0.500 [0.450, 0.550] | 0.700 [0.650, 0.750] | 0.600 [0.550, 0.650] |" in lines
    assert "| Gold, gain per nat | | +0.100 | +0.200 |" in lines
    assert "| Tokens sampled | | 12,000 | 0 |" in lines
    assert "| Seconds of training | | 61 | |" in lines
    console.print(second)
    assert "| | SFT | ppo |" in [" ".join(line.split()) for line in console.export_text().splitlines()]


@pytest.mark.parametrize("hidden", [(), ("gold",)])
def test_the_plot_has_a_point_a_run_and_an_axis_that_says_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
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
