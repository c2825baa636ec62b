"""Rounds of labels and training: what is kept of each, so that a later command goes on, and the table of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from components.artifacts import read_json, write_json
from components.measuring.metrics import JUDGE, KL, WIN_RATE, interval_text, metric_that_counts

SFT = "sft"  # as whom a round begins where there is no champion


@dataclass(frozen=True)
class Round:
    """One round, in a folder of its own; what is known of it is written down step by step.

    Args:
        folder: its name is the round's number.
    """

    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def queue(self) -> Path:
        """The pairs that are asked about."""
        return self.folder / "queue.json"

    @property
    def labels(self) -> Path:
        """What was said of them, as `proximal label` writes it."""
        return self.folder / "labels.jsonl"

    @property
    def name(self) -> str:
        """Of the round among others, such as rounds/2."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def known(self) -> dict[str, Any]:
        """What has been noted.

        present: the policy that it asks about and goes on from, NAME@NUMBER or "sft"; digest: of that policy.
        comparisons, annotators: how many prompts are asked, and who judges.
        rows: how many comparisons came in; commit, data: the version of the data with them.
        run_id: of the pipeline's run in MLflow; evaluation: its figures; model, policy: the candidate, its digest;
        decision, verdict: of the gate.
        """
        file = self._file
        return dict(read_json(file)) if file.exists() else {}

    def note(self, **values: Any) -> None:
        """Write down more, whole or not at all."""
        self.known.update(values)
        write_json(self._file, self.known)

    @property
    def is_done(self) -> bool:
        return "decision" in self.known

    @property
    def _file(self) -> Path:
        return self.folder / "round.json"


def write_tables(rounds: Sequence[Round], folder: Path) -> tuple[Path, Path]:
    """Write what is known of all rounds as rounds.json, and their table as rounds.md; gives both."""
    values, page = folder / "rounds.json", folder / "rounds.md"
    write_json(values, [{"round": each.number, **each.known} for each in rounds])
    page.write_text(_markdown(rounds_cells(rounds)), encoding="utf-8")
    return values, page


def rounds_table(rounds: Sequence[Round]) -> Table:
    """What became of each round, with intervals by prompt; each round's judge is trained anew, on its own data."""
    table = Table(title="Held-out prompts, mean [95 % interval by prompt]", title_justify="left", box=box.MARKDOWN)
    header, *rows = rounds_cells(rounds)
    for name in header:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def rounds_cells(rounds: Sequence[Round]) -> list[list[str]]:
    """The table's cells, its header first."""
    shown = metric_that_counts(rounds[0].known["evaluation"]["sft"])
    judged = [JUDGE] if shown is not JUDGE else []
    header = ["round", "goes on from", "comparisons", "data", "candidate", "policy", f"{shown.label}, SFT", shown.label,
              *(metric.label for metric in judged), KL.label, WIN_RATE.label, "gate"]  # fmt: skip
    rows = []
    for each in rounds:
        known, found = each.known, each.known["evaluation"]
        figures = [interval_text(found[side][shown.name], shown) for side in ("sft", "candidate")]
        figures += [interval_text(found["candidate"][metric.name], metric) for metric in (*judged, KL)]
        figures.append(interval_text(found["win_rate"], WIN_RATE))
        came_in = [known["present"], str(known["rows"]), known["data"][:8]]
        rows.append([str(each.number), *came_in, known["model"], known["policy"][:8], *figures, known["decision"]])
    return [header, *rows]


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    header, *rows = cells
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_plain(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [{"round": each.number, **json.loads(json.dumps(each.known))} for each in rounds]
