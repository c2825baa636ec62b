"""What a stage tells of itself, and how that is written down for MLflow."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from components.digests import digest
from components.tracking import store
from components.tracking.history import tagged
from components.tracking.journal import Journal
from components.tracking.pages import run_page
from components.tracking.provenance import content_digests

_DESCRIPTION = "mlflow.note.content"


class StageRun:
    """What a stage tells of itself. This class keeps nothing: every process but the first gets it.

    Args:
        inputs: path -> digest of all that the stage reads, of folders with all that is in them; the first process
            has them alone.
    """

    def __init__(self, inputs: Mapping[str, str] | None = None) -> None:
        self.inputs = dict(inputs or {})

    @property
    def run_id(self) -> str:
        """Of the run; the first process has it alone."""
        return ""

    @property
    def pipeline(self) -> StageRun:
        """The run of the whole pipeline, for what people compare pipelines by."""
        return StageRun()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, under the names given."""

    def check(self, name: str, found: float, step: int) -> None:
        """What the stage found when it checked itself; see components.self_checks."""
        self.metrics({f"check/{name}": found}, step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as a table that the MLflow UI shows; `name` ends in .json."""

    def figure(self, path: Path) -> None:
        """A picture, into the folder figures/ of the run."""

    def artifact(self, path: Path) -> None:
        """A file, or a folder with all that is in it."""

    def dataset(self, name: str, path: Path) -> None:
        """A file of rows that the stage read, with its digest; it is not copied."""

    def outputs(self, paths: Iterable[Path]) -> None:
        """What the stage made, by digest: later stages and `proximal lineage` find this run by it."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Short texts to find the run by."""

    def page(self, artifact: str | None = None) -> str:
        """Where MLflow shows this run, or a file of it, for a link from another of its pages."""
        return ""

    def describe(self, markdown: str) -> None:
        """What stands above all else on the run's page; it replaces what stood there."""


class RecordedRun(StageRun):
    """What a stage tells of itself, added to its journal; `courier` brings that to MLflow.

    Args:
        of: "pipeline" where what is told is of the pipeline's run, else of the journal's own.
    """

    def __init__(
        self,
        journal: Journal,
        stage: str,
        inputs: Mapping[str, str] | None = None,
        root: Path = Path(),
        of: Literal["pipeline"] | None = None,
    ) -> None:
        super().__init__(inputs=inputs)
        self.journal, self._stage, self._root, self._of = journal, stage, root, of

    @property
    def run_id(self) -> str:
        """Empty as long as MLflow has not heard of it."""
        run: str = self.journal.state.get("parent" if self._of else "run", "")
        return run

    @property
    def pipeline(self) -> StageRun:
        return self if self._of else RecordedRun(self.journal, "pipeline", of="pipeline")

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._add(metrics={name: float(value) for name, value in values.items()}, step=step, at=now())

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(json.dumps({"columns": columns, "data": cells}, ensure_ascii=False), encoding="utf-8")
            self._add(file=self.journal.keep(path), to=None, table=True)

    def figure(self, path: Path) -> None:
        self._add(file=self.journal.keep(path), to="figures", table=False)

    def artifact(self, path: Path) -> None:
        self._add(file=self.journal.keep(path), to=None, table=False)

    def dataset(self, name: str, path: Path) -> None:
        profile = {"rows": path.read_bytes().count(b"\n")} if path.suffix == ".jsonl" else {}
        told = {"name": name, "digest": digest(path), "path": path.as_posix(), "profile": profile}
        self._add(dataset=told | {"stage": self._stage})

    def outputs(self, paths: Iterable[Path]) -> None:
        self.tags(tagged("out", content_digests(paths, self._root)))

    def tags(self, values: Mapping[str, str]) -> None:
        self._add(tags=dict(values))

    def page(self, artifact: str | None = None) -> str:
        return run_page(store.experiment_id(), self.run_id, artifact) if self.run_id else ""

    def describe(self, markdown: str) -> None:
        self.tags({_DESCRIPTION: markdown})

    def end(self, status: str) -> None:
        """Close the run; nothing is told after that."""
        self._add(end=status, at=now())

    def _add(self, **entry: Any) -> None:
        self.journal.add(entry | ({"of": self._of} if self._of else {}))


def now() -> int:
    """As MLflow has its times: milliseconds since 1970."""
    return int(time.time() * 1000)


def _cell(value: Any) -> Any:
    """A value of a table, which is JSON: that has no number for what is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
