"""The tables at the end, from figures made up by hand."""

from __future__ import annotations

import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from components.interface.run_tables import evaluation_table, seeds_table
from components.interface.seeds import criteria
from components.interface.terminal import show_result


def interval(mean: float, margin: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - margin, "high": mean + margin}


def evaluation(**difference: dict[str, float]) -> dict[str, Any]:
    """Gold, its parts and KL; every difference 0.1 +- 0.05 unless given."""
    names = ("gold", "helpful", "harmless", "honest")
    return {
        "sft": {name: interval(0.6, 0.05) for name in names} | {"kl": interval(0.0, 0.0)},
        "candidate": {name: interval(0.7, 0.05) for name in names} | {"kl": interval(3.25, 0.25)},
        "difference": {name: interval(0.1, 0.05) for name in names} | {"kl": interval(3.25, 0.25)} | difference,
        "win_rate": interval(0.75, 0.05),
    }


def text(table: RenderableType) -> list[str]:
    console = Console(width=140, file=StringIO(), record=True)
    console.print(table)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def holds(found: dict[str, Any]) -> list[bool]:
    return [criterion.holds for criterion in criteria(found)]


def test_the_table_of_a_run() -> None:
    lines = text(evaluation_table(evaluation()))
    assert "Gold 0.600 [0.550, 0.650] 0.700 [0.650, 0.750] +0.100 [+0.050, +0.150]" in lines
    assert "KL to SFT 0.00 [0.00, 0.00] 3.25 [3.00, 3.50] +3.25 [+3.00, +3.50]" in lines
    assert "Win rate 0.750 [0.700, 0.800]" in lines


def test_the_table_of_the_seeds() -> None:
    lines = text(seeds_table({1: evaluation(), 2: evaluation(helpful=interval(-0.01, 0.05))}))
    assert "seed 1 seed 2" in lines
    assert "Gold 0.600 -> 0.700 0.600 -> 0.700" in lines
    assert "Gold, difference +0.100 [+0.050, +0.150] +0.100 [+0.050, +0.150]" in lines
    assert "no part falls yes NO" in lines
    assert "two parts rise yes yes" in lines


def test_each_claim_can_fail() -> None:
    assert holds(evaluation()) == [True, True, True, True]
    assert holds(evaluation(gold=interval(0.04, 0.05))) == [False, True, True, True]
    assert holds(evaluation(honest=interval(-0.01, 0.05))) == [True, False, True, True]
    still = interval(0.0, 0.05)
    assert holds(evaluation(honest=still)) == [True, True, True, True]
    assert holds(evaluation(honest=still, helpful=still)) == [True, True, False, True]
    far = evaluation()
    far["candidate"]["kl"] = interval(6.0, 0.1)
    assert holds(far) == [True, True, True, False]


def test_a_lock_that_the_run_has_changed_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def end_of_run(repository: Path | None) -> str:
        show_result(repository, None)
        return capsys.readouterr().out

    assert "dvc.lock" not in end_of_run(tmp_path)  # no git repository: nothing to commit to
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    assert "dvc.lock" not in end_of_run(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {} # another\n")
    assert "dvc.lock now holds this machine's results" in end_of_run(tmp_path)
    assert "dvc.lock" not in end_of_run(None)  # a clone's: it is gone
