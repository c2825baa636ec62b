"""One MLflow run for one stage: a child of the pipeline's run, written by the first process only."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from components.config import Params
from components.digests import require_input
from components.errors import ConfigError, EnvironmentFault
from components.tracking import store
from components.tracking.history import tagged
from components.tracking.invocation import STAGE_VARIABLE, child_of_dvc, status_after
from components.tracking.provenance import content_digests, flatten, provenance_tags
from components.tracking.recorder import RecordedRun, StageRun
from components.tracking.verification import verify_inputs
from components.tracking.writing import create_run

PARENT_VARIABLE = "PROXIMAL_PARENT_RUN_ID"


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
        run = RecordedRun(_create(stage, params, read, cycle, parent, root), stage, read, root, parent)
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
        **({} if cycle is None else {"cycle": str(cycle)}),
        "method": values["method"],
        "seed": str(values["seed"]),
        "mlflow.source.name": f"components.{stage}",
        **provenance_tags(params, root),
        **tagged("in", read),
    }
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
