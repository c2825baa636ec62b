"""One MLflow run for one stage: a child of the pipeline's run, written by the first process only."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from components.config import Params
from components.digests import digest, require_input
from components.errors import ConfigError, EnvironmentFault
from components.tracking import store
from components.tracking.history import tagged
from components.tracking.invocation import STAGE_VARIABLE, child_of_dvc, status_after
from components.tracking.provenance import content_digests, flatten, provenance_tags
from components.tracking.verification import verify_inputs
from components.tracking.writing import create_run, log_texts

if TYPE_CHECKING:
    from mlflow.entities import Metric

PARENT_VARIABLE = "PROXIMAL_PARENT_RUN_ID"
_METRICS_AT_ONCE = 1000  # MLflow's limit
_SECONDS_BETWEEN_WRITES = 1.0


class StageRun:
    """What a stage tells of itself. This class keeps nothing: every process but the first gets it.

    Args:
        run_id: of the run; the first process has it alone, and so it is with the inputs.
        inputs: path -> digest of all that the stage reads, of folders with all that is in them.
    """

    def __init__(self, run_id: str = "", inputs: Mapping[str, str] | None = None) -> None:
        self.run_id = run_id
        self.inputs = dict(inputs or {})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, under the names given."""

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


class RecordedRun(StageRun):
    """What a stage tells of itself, written to MLflow; metrics wait up to a second to go together."""

    def __init__(self, run_id: str, stage: str, inputs: Mapping[str, str] | None = None, root: Path = Path()) -> None:
        super().__init__(run_id, inputs)
        self._root = root
        self._stage = stage
        self._waiting: list[Metric] = []
        self._written = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait."""
        waiting, self._waiting = self._waiting, []
        with store.tracking_faults():
            for start in range(0, len(waiting), _METRICS_AT_ONCE):
                store.client().log_batch(self.run_id, metrics=waiting[start : start + _METRICS_AT_ONCE])
        self._written = time.monotonic()

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = dict.fromkeys(column for row in rows for column in row)
        with store.tracking_faults():
            store.client().log_table(
                self.run_id, {column: [row.get(column) for row in rows] for column in columns}, name
            )

    def figure(self, path: Path) -> None:
        with store.tracking_faults():
            store.client().log_artifact(self.run_id, str(path), "figures")

    def artifact(self, path: Path) -> None:
        with store.tracking_faults():
            store.client().log_artifact(self.run_id, str(path))

    def dataset(self, name: str, path: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"rows": path.read_bytes().count(b"\n")} if path.suffix == ".jsonl" else {}
        entity = Dataset(
            name,
            digest(path),
            source_type="local",
            source=json.dumps({"uri": path.as_posix()}),
            profile=json.dumps(profile),
        )
        with store.tracking_faults():
            context = [InputTag("mlflow.data.context", self._stage)]
            store.client().log_inputs(self.run_id, [DatasetInput(entity, context)])

    def outputs(self, paths: Iterable[Path]) -> None:
        self.tags(tagged("out", content_digests(paths, self._root)))

    def tags(self, values: Mapping[str, str]) -> None:
        log_texts(self.run_id, tags=values)

    def end(self, status: str) -> None:
        """Send what waits and close the run."""
        self.flush()
        with store.tracking_faults():
            store.client().set_terminated(self.run_id, status)


@contextmanager
def stage_run(
    stage: str, params: Params, inputs: Iterable[Path] = (), cycle: int | None = None, root: Path = Path()
) -> Iterator[StageRun]:
    """Record a stage, until the end of the block, as a child of $PROXIMAL_PARENT_RUN_ID or of the DVC command's run.

    The run ends FINISHED, FAILED on an exception, or KILLED on SystemExit, KeyboardInterrupt and SIGTERM; the
    exception goes on. In processes other than rank 0 nothing is recorded.

    Args:
        root: of the repository: inputs and outputs are named from there on.

    Raises:
        ArtifactError: an input does not exist, or is not what the stage that made it left.
        ConfigError: the parent run is not in this tracking store.
        EnvironmentFault: the tracking store fails.
    """
    if os.environ.get("RANK", "0") != "0":
        for path in inputs:  # the first process finds it missing, too, and whoever is quicker says the same
            require_input(path)
        yield StageRun()
        return
    read = _checked(stage, inputs, root)
    parent_of_flow = os.environ.get(PARENT_VARIABLE)
    if parent_of_flow:
        _require_run(parent_of_flow)
    with nullcontext(parent_of_flow) if parent_of_flow else child_of_dvc(params, root) as parent:
        run = RecordedRun(_create(stage, params, read, cycle, parent, root), stage, read, root)
        try:
            with _sigterm_raises():
                yield run
        except BaseException as fault:
            _end_badly(run, status_after(fault), store.first_line(fault))
            raise
        run.end("FINISHED")


def _checked(stage: str, inputs: Iterable[Path], root: Path) -> dict[str, str]:
    """Digests of what the stage reads, which is what the stages before it left."""
    read = content_digests(inputs, root)
    # By hand, without DVC, dvc.lock may be of another time.
    if STAGE_VARIABLE in os.environ or stage == "promotion":
        verify_inputs(read, root)
    return read


def _create(
    stage: str, params: Params, read: Mapping[str, str], cycle: int | None, parent: str | None, root: Path
) -> str:
    values = params.values()
    section = values["method"] if stage == "alignment" else stage
    tags = {
        "stage": stage,
        "method": values["method"],
        "mlflow.source.name": f"components.{stage}",
        **provenance_tags(params, root),
        **tagged("in", read),
    }
    if cycle is not None:
        tags["cycle"] = str(cycle)
    if parent is not None:
        tags |= {"mlflow.parentRunId": parent, "parent_run_id": parent}
    name = stage if cycle is None else f"{stage}-{cycle}"
    return create_run(name, tags, flatten({"seed": values["seed"], section: values[section]}))


def _require_run(run_id: str) -> None:
    with store.tracking_faults():
        from mlflow.exceptions import MlflowException

        try:
            store.client().get_run(run_id)
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ConfigError(
                "the parent run is not in this tracking store",
                where=f"{PARENT_VARIABLE}, {store.tracking_uri()}",
                expected="the id of the pipeline's run",
                found=run_id,
                do="give the pipeline and its stages the same MLFLOW_TRACKING_URI, or unset the variable",
            ) from fault


def _end_badly(run: RecordedRun, status: str, error: str) -> None:
    """Close a run without covering what went wrong, even when the store is what went wrong (a full disk)."""
    try:
        run.tags({"error": error})
        run.end(status)
    except EnvironmentFault as fault:
        print(f"warning: run {run.run_id} stays open in MLflow: {fault}", file=sys.stderr, flush=True)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the block like an exception, unless the program has a handler of its own."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
