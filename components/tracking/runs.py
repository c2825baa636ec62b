"""One MLflow run for one stage: a child of the pipeline's run, told of by the first process only."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from components.config import Params
from components.digests import require_input
from components.errors import ConfigError
from components.tracking import store
from components.tracking.courier import Courier
from components.tracking.delivery import deliver
from components.tracking.history import tagged
from components.tracking.invocation import STAGE_VARIABLE, invocation
from components.tracking.journal import Entry, Journal
from components.tracking.machine import sampled
from components.tracking.provenance import content_digests, flatten, provenance_tags
from components.tracking.recorder import RecordedRun, StageRun, now
from components.tracking.store import StoreAway
from components.tracking.verification import verify_inputs

PARENT_VARIABLE = "PROXIMAL_PARENT_RUN_ID"
PROMOTION = "promotion"  # moves aliases in the registry, so that it cannot do without the store
# How long a stage that has ended waits for a store that is away; after a fault, less than a run grants it to end.
_AT_THE_END_S = 10.0
_AFTER_A_FAULT_S = 3.0

logger = logging.getLogger("proximal")


@contextmanager
def stage_run(
    stage: str, params: Params, inputs: Iterable[Path] = (), cycle: int | None = None, root: Path = Path()
) -> Iterator[StageRun]:
    """Record a stage, until the end of the block, as a child of $PROXIMAL_PARENT_RUN_ID or of the DVC command's run.

    The run ends FINISHED, FAILED on an exception, or KILLED on SystemExit, KeyboardInterrupt and SIGTERM; the
    exception goes on. In processes other than rank 0 nothing is recorded. A tracking store that does not answer stops
    nothing but a promotion: what is told is kept in `journal.folder()` until it does.

    Args:
        root: of the repository: inputs and outputs are named from there on.

    Raises:
        ArtifactError: an input does not exist, or is not what the stage that made it left.
        ConfigError: the parent run is not in this tracking store.
        EnvironmentFault: the tracking store fails, or does not answer a promotion.
    """
    if os.environ.get("RANK", "0") != "0":
        for path in inputs:  # the first process finds it missing, too, and whoever is quicker says the same
            require_input(path)
        yield StageRun()
        return
    read = _checked(stage, inputs, root)
    needs_store = stage == PROMOTION
    with nullcontext() if needs_store else store.impatient():
        parent = os.environ.get(PARENT_VARIABLE)
        opening = _opening(stage, params, read, cycle, parent, root)
        journal = Journal.begin(opening["name"], **({"parent": parent} if parent else {}))
        away = _open(journal, opening, needs_store=needs_store)
        run, courier = RecordedRun(journal, stage, read, root), Courier(journal, away)
        courier.start()
        try:
            with _sigterm_raises(), sampled(run):
                yield run
        except BaseException as fault:
            run.tags({"error": store.first_line(fault)})
            run.end("FAILED" if isinstance(fault, Exception) else "KILLED")
            if not courier.end(_AFTER_A_FAULT_S):
                _warn(journal, courier)
            raise
        run.end("FINISHED")
        if not courier.end(_AT_THE_END_S):
            _warn(journal, courier)


@contextmanager
def reopened(run_id: str, name: str) -> Iterator[RecordedRun]:
    """Tell more of a run that is there already; what the tracking store does not take now is kept."""
    with store.impatient():
        journal = Journal.begin(name, run=run_id)
        courier = Courier(journal)
        courier.start()
        try:
            yield RecordedRun(journal, name)
        finally:
            if not courier.end(_AT_THE_END_S):
                _warn(journal, courier)


def _open(journal: Journal, opening: Entry, *, needs_store: bool) -> StoreAway | None:
    """Open the run, now if the tracking store answers.

    Raises:
        StoreAway: it does not, and the stage cannot do without.
        EnvironmentFault: it is there and refuses.
    """
    try:
        journal.add({"open": opening})
        if parent := journal.state.get("parent"):
            _require_run(parent)
        deliver(journal)
    except StoreAway as away:
        if not needs_store:
            return away
        journal.close(remove=True)
        raise StoreAway(
            "the candidate cannot be offered for promotion: the model registry does not answer",
            where=away.where,
            expected=away.expected,
            found=away.found,
            do="see that the server can be reached; all else of this run is kept: the next `proximal run` offers it",
        ) from away
    except BaseException:
        journal.close(remove=True)
        raise
    return None


def _warn(journal: Journal, courier: Courier) -> None:
    fault = courier.fault
    logger.warning(
        "%s: MLflow does not have all of this run: %s; it is kept in %s, and `proximal sync` delivers it",
        *(journal.name, f"{fault.what} ({fault.where})" if fault else f"{store.name()} is slow", journal.path),
    )


def _checked(stage: str, inputs: Iterable[Path], root: Path) -> dict[str, str]:
    """Digests of what the stage reads, which is what the stages before it left."""
    read = content_digests(inputs, root)
    # By hand, without DVC, dvc.lock may be of another time.
    if STAGE_VARIABLE in os.environ or stage == "promotion":
        verify_inputs(read, root)
    return read


def _opening(
    stage: str, params: Params, read: Mapping[str, str], cycle: int | None, parent: str | None, root: Path
) -> Entry:
    """All that the run is opened with."""
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
    return {
        "name": stage if cycle is None else f"{stage}-{cycle}",
        "tags": tags,
        "params": flatten({"seed": values["seed"], section: values[section]}),
        "at": now(),
        "invocation": None if parent else invocation(params, root),
    }


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
