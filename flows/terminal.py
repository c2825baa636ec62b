"""What a person sees: a line at a time while it works, and the table at the end."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from components.interface.seeds import criteria
from components.measuring.metrics import KL, WIN_RATE, Metric, metrics_among, parts_among, rubric_metrics
from components.paths import EVALUATION, SELECTION

_ROOMY = 1000  # columns, more than any table takes
_ENGINE = (
    "Beginning flow run",
    "View at",
    "Finished in state",
    "Task run failed with state",
    "Crash detected! Execution was aborted by an interrupt signal",  # the command says what that means
)


def quiet_engine() -> None:
    """Leave out of the terminal what Prefect's engine says of itself; its own records keep it all."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_ENGINE)

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)


def show_result(repository: Path | None, evaluation: dict[str, Any] | None) -> None:
    """The end of a run: SFT against the candidate, where the report and the model are, and how to see more.

    Args:
        repository: where these are; None when the run was in a clone, which is gone.
    """
    if evaluation:
        print_whole(evaluation_table(evaluation))
    console = Console()
    for label, path in (("report", EVALUATION / "report.html"), ("model", SELECTION / "policy")):
        if repository is not None and (repository / path).exists():
            console.print(f"{label + ':':<8}{path}", soft_wrap=True)
    console.print(f"{'runs:':<8}`make ui` opens MLflow")
    if repository is not None and lock_has_changed(repository):
        console.print(
            f"{'lock:':<8}dvc.lock now holds this machine's results: with it committed, `dvc metrics diff` and "
            "`dvc checkout` go by them",
            soft_wrap=True,
        )


def lock_has_changed(repository: Path) -> bool:
    """Whether dvc.lock is another than the commit's."""
    command = ["git", "status", "--porcelain", "--", "dvc.lock"]
    asked = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())


def print_whole(table: Table) -> None:
    """Print a table so that it keeps one line a row, also where the terminal says it is narrower."""
    console = Console()
    console.width = max(console.width, Console(width=_ROOMY).measure(table).maximum)
    console.print(table)


def evaluation_table(evaluation: dict[str, Any]) -> Table:
    """Each figure of the SFT policy and of the candidate, and the difference, with their intervals."""
    table = _compact_table("Held-out prompts, mean [95 % interval paired by prompt]")
    table.add_column("")
    for column in ("SFT", "candidate", "candidate - SFT"):
        table.add_column(column, justify="right")
    for metric in metrics_among(evaluation["candidate"]):
        cells = [_interval(evaluation[side][metric.name], metric) for side in ("sft", "candidate")]
        gain = evaluation["difference"][metric.name]
        table.add_row(metric.label, *cells, _interval(gain, metric, sign="+"), style=_style(metric, gain))
    table.add_row(WIN_RATE.label, "", _interval(evaluation["win_rate"], WIN_RATE), "")
    return table


def seeds_table(evaluations: Mapping[int, dict[str, Any]]) -> Table:
    """One column a seed: gold and its parts before and after, KL, and whether each claim holds."""
    table = Table(title="SFT -> candidate on held-out prompts", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for seed in evaluations:
        table.add_column(f"seed {seed}", justify="right")
    columns = list(evaluations.values())
    names = list(columns[0]["difference"])
    for metric in rubric_metrics(names):
        table.add_row(metric.label, *(_before_and_after(column, metric) for column in columns))
        if metric.name not in parts_among(names):
            gains = (_interval(column["difference"][metric.name], metric, sign="+") for column in columns)
            table.add_row(f"{metric.label}, difference", *gains)
    table.add_row(f"{KL.label} (nats)", *(_number(column["candidate"][KL.name]["mean"], KL) for column in columns))
    for claims in zip(*(criteria(column) for column in columns), strict=True):
        table.add_row(claims[0].claim, *("yes" if claim.holds else "NO" for claim in claims))
    return table


def _compact_table(title: str, *, show_footer: bool = False) -> Table:
    """A table that wastes no columns: many are wide, and terminals are not."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_footer=show_footer,
    )


def _style(metric: Metric, gain: dict[str, float]) -> str | None:
    if not metric.more_is_better:
        return None
    return "green" if gain["low"] > 0 else "red" if gain["high"] < 0 else None


def _before_and_after(evaluation: dict[str, Any], metric: Metric) -> str:
    before, after = (evaluation[side][metric.name]["mean"] for side in ("sft", "candidate"))
    return f"{_number(before, metric)} -> {_number(after, metric)}"


def _interval(interval: dict[str, float], metric: Metric, sign: str = "") -> str:
    mean, low, high = (_number(interval[key], metric, sign) for key in ("mean", "low", "high"))
    return f"{mean} \\[{low}, {high}]"


def _number(value: float, metric: Metric, sign: str = "") -> str:
    return f"{value:{sign}.{metric.decimals}f}"
