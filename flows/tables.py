"""DVC's stages and experiments in a form that fits a terminal: what DVC itself draws is hundreds of columns wide."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from flows.graph import Stage

_SUMMARY = "artifacts/evaluation/summary.json"  # named where another file has a metric of the same name
_FIGURES = ("gold", "judge", "kl", "win_rate")


def stage_lines(stages: Sequence[Stage]) -> list[str]:
    """A line a stage, in the order in which they run: its name, whether it would run, what it waits for."""
    width = max(len(stage.name) for stage in stages)
    return [
        f"{stage.name:<{width}}  {'changed' if stage.changed else '-':<7}  {', '.join(stage.upstream) or '-'}"
        for stage in stages
    ]


def experiment_lines(shown: str, sections: Iterable[str]) -> list[str]:
    """A line an experiment: its name, the figures that count, and of all params those in which any two differ.

    Args:
        shown: what `dvc exp show --csv` prints.
        sections: the top keys of params.yaml.
    """
    rows = list(csv.DictReader(io.StringIO(shown)))
    params = [name for name in rows[0] if name.partition(".")[0] in set(sections) and len({r[name] for r in rows}) > 1]
    table = [["experiment", *_FIGURES, *params]]
    for row in rows:
        figures = [row.get(f"{_SUMMARY}:{name}") or row.get(name) or "" for name in _FIGURES]
        table.append([row["Experiment"] or row["rev"], *map(_short, figures), *(row[name] or "-" for name in params)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _short(figure: str) -> str:
    return f"{float(figure):.3f}" if figure not in ("", "!") else "-"  # DVC's sign for what it does not have
