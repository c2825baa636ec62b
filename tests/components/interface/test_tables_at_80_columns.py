"""Every table in a terminal of 80 columns: no line is longer, and nothing is broken in two or cut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType

from components.interface.comparison_tables import comparison_tables
from components.interface.run_tables import evaluation_table, seeds_table
from components.interface.terminal import print_whole
from components.measuring.metrics import DISTINCT, GOLD, MEANS, interval_text, number, part

METRICS = [GOLD, *(part(name) for name in ("helpful", "harmless", "honest")), *MEANS, *DISTINCT.values()]


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.0311, "high": mean + 0.0311}


def evaluation(shift: float = 0.0) -> dict[str, Any]:
    """Every metric there is, the widest figures that are usual; means differ by metric, so that each is found."""
    means = {metric.name: -0.1 - number / 100 - shift for number, metric in enumerate(METRICS)}
    means |= {"response_tokens": 1012.3, "kl": 14.25 + shift}
    return {
        "sft": {name: interval(mean) for name, mean in means.items()},
        "candidate": {name: interval(mean + 0.3) for name, mean in means.items()},
        "difference": {name: interval(-0.2 - shift) for name in means},
        "win_rate": interval(0.75 + shift),
    }


def shown(table: RenderableType, monkeypatch: pytest.MonkeyPatch, capsys: Any, columns: int | None) -> str:
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    print_whole(table)
    return str(capsys.readouterr().out)


def require_whole(text: str, columns: int) -> None:
    assert max(len(line) for line in text.splitlines()) <= columns
    assert "\u2026" not in text and "..." not in text
    assert text.count("[") == text.count("]")
    assert all(line.count("[") == line.count("]") for line in text.splitlines())  # no interval goes on below


@pytest.mark.parametrize("columns", [80, 99, 100])
def test_the_table_of_a_run_and_of_evaluate(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    figures = evaluation()
    text = shown(evaluation_table(figures), monkeypatch, capsys, columns)
    require_whole(text, columns)
    rows = {line[:20].strip(): line for line in text.splitlines()}
    for metric in METRICS:
        for side in ("sft", "candidate"):
            assert number(figures[side][metric.name]["mean"], metric) in rows[metric.label]
        assert interval_text(figures["difference"][metric.name], metric, "+") in rows[metric.label]
    assert "0.750 [0.719, 0.781]" in rows["Win rate"]


def test_the_table_of_the_seeds(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seeds = {seed: evaluation(seed / 1000) for seed in (1, 2, 3)}
    text = shown(seeds_table(seeds), monkeypatch, capsys, 80)
    require_whole(text, 80)
    for seed, figures in seeds.items():
        assert f"seed {seed}" in text
        mean, _, bounds = interval_text(figures["difference"]["gold"], GOLD, "+").partition(" ")
        assert mean in text and bounds in text
        assert number(figures["candidate"]["gold"]["mean"], GOLD) in text
    assert "NO" in text


def test_the_tables_of_compare(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    methods = ("ppo", "grpo", "rloo", "dpo", "online_dpo", "q_learning", "best_of_n")
    cost = {"sampled_tokens": 1_234_567, "trained_tokens": 22_345_678, "seconds": 1234.5}
    figures = {
        (method, 1): {"evaluation": evaluation(place / 1000), "cost": cost} for place, method in enumerate(methods)
    }
    (table,) = comparison_tables(figures)
    text = shown(table, monkeypatch, capsys, 80)
    require_whole(text, 80)
    for place, method in enumerate(methods):
        assert f" {method} " in text
        for metric in (GOLD, part("helpful")):
            assert interval_text(evaluation(place / 1000)["candidate"][metric.name], metric) in text
    assert text.count("22,345,678") == len(methods)


def test_without_a_terminal_every_table_is_whole(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    figures = evaluation()
    text = shown(evaluation_table(figures), monkeypatch, capsys, None)
    for side, sign in (("sft", ""), ("candidate", ""), ("difference", "+")):
        assert interval_text(figures[side]["response_tokens"], MEANS[3], sign) in text


def test_in_a_terminal_of_80_columns_the_table_is_as_wide_as_that(tmp_path: Path) -> None:
    """A real one: `script` gives the process a pseudo-terminal, and stty its size."""
    program = tmp_path / "show.py"
    program.write_text(
        "from test_tables_at_80_columns import evaluation\n"
        "from components.interface.run_tables import evaluation_table\n"
        "from components.interface.terminal import print_whole\n"
        "print_whole(evaluation_table(evaluation()))\n"
    )
    inner = f"stty cols 80; PYTHONPATH={':'.join(sys.path)} TERM=dumb {sys.executable} {program}"
    command = ["script", "--quiet", "--return", "--command", inner, str(tmp_path / "typescript")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    require_whole(done.stdout.replace("\r", ""), 80)
    assert "-0.200 [-0.231, -0.169]" in done.stdout
