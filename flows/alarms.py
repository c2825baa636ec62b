"""What the figures of a cycle give reason to tell somebody of, as soon as it is done: the run still goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prefect.futures import PrefectFuture

from components.artifacts import read_json
from components.config import Params
from components.errors import ProximalError
from components.measuring.intervals import FEW_PROMPTS, Interval, paired_interval
from components.measuring.records import Record, prompt_means, read_records
from components.place import Place
from flows.events import KL_ABOVE_CEILING, PROXY_RISING, emit
from flows.outcome import Outcome, PipelineFailure
from flows.shown import as_far_as_prefect_answers

_MADE_ANEW = (Outcome.RAN, Outcome.RESTORED)  # of what was there already, an earlier run has told
_PATIENCE_S = 30.0

logger = logging.getLogger("prefect.proximal")


class Alarm(NamedTuple):
    """An event and why it is emitted."""

    event: str
    reason: str


@contextmanager
def watched(
    stages: Mapping[str, PrefectFuture[Any]], folder: Path, params: Params, run: Mapping[str, str]
) -> Iterator[None]:
    """Until the end of the block, a cycle whose figures are bad is told of, in the run's log and by an event.

    Args:
        run: the events' resource: the flow run's id and name.
    """
    looked = {name: threading.Event() for name in stages if name.startswith("alignment@")}

    def look(stage: PrefectFuture[Any], name: str) -> None:
        try:
            stage.wait()  # it has ended; this reads how
            if stage.state.is_completed() and str(stage.state.name).lower() in _MADE_ANEW:
                _tell(int(name.partition("@")[2]), folder, params, run)
        finally:
            looked[name].set()

    for name in looked:
        # In the flow's context: what is called back has none, and would know neither the server nor the run.
        stages[name].add_done_callback(partial(copy_context().run, look, name=name))  # type: ignore[call-arg]
    try:
        yield
    except PipelineFailure:
        _wait_for(looked.values())
        raise
    _wait_for(looked.values())


def _wait_for(looked: Iterable[threading.Event]) -> None:
    """Who waits for stages goes on before these have looked; a clone with what they read is gone after that."""
    deadline = time.monotonic() + _PATIENCE_S
    for each in looked:
        each.wait(max(0.0, deadline - time.monotonic()))


def _tell(cycle: int, folder: Path, params: Params, run: Mapping[str, str]) -> None:
    try:
        alarms = alarms_of(cycle, folder, params)
    except ProximalError as fault:  # the stages that need the figures refuse them
        logger.warning("cycle %d: nobody can tell whether its figures are good: %s", cycle, fault.what)
        return
    for alarm in alarms:
        logger.warning(alarm.reason)
        with as_far_as_prefect_answers(f"the event {alarm.event}"):
            emit(alarm.event, run, {"cycle": cycle, "reason": alarm.reason})


def alarms_of(cycle: int, folder: Path, params: Params) -> list[Alarm]:
    """What its validation figures give reason for: selection's rule, and the difference to the cycle before.

    The training reward has risen, or the judge's fallen, where the interval of the difference, paired by prompt,
    excludes 0; of fewer prompts than the project says anything by, nothing is said (components.measuring.intervals).

    Raises:
        ArtifactError: a cycle's figures are corrupt.
    """
    found = []
    kl = read_json(_of(folder, cycle) / "metrics.json")["validation"]["kl"]
    ceiling = params.selection.max_kl_nats_per_sequence
    if kl > ceiling:
        reason = f"cycle {cycle}: a KL of {kl:.2f} nats per sequence is above the ceiling of {ceiling:g}"
        found.append(Alarm(KL_ABOVE_CEILING, f"{reason} (selection.max_kl_nats_per_sequence)"))
    before, after = _records(folder, cycle)
    if len(prompt_means(after, "judge")) >= FEW_PROMPTS:
        proxy, judge = (_change(name, before, after, params.evaluation.confidence) for name in ("reward", "judge"))
        if proxy.low > 0.0 and judge.high < 0.0:
            reason = f"cycle {cycle}: the training reward rises ({proxy.mean:+.3f}) while the judge falls"
            found.append(Alarm(PROXY_RISING, f"{reason} ({judge.mean:+.3f}): over-optimisation"))
    return found


def _records(folder: Path, cycle: int) -> tuple[list[Record], list[Record]]:
    """Of the policy that the cycle started from, and of its own, on the same prompts."""
    here = read_records(_of(folder, cycle) / "validation.jsonl")
    before = here["start"] if cycle == 1 else read_records(_of(folder, cycle - 1) / "validation.jsonl")["cycle"]
    return before, here["cycle"]


def _change(name: str, before: list[Record], after: list[Record], confidence: float) -> Interval:
    old, new = prompt_means(before, name), prompt_means(after, name)
    return paired_interval([new[prompt] for prompt in old], list(old.values()), confidence=confidence)


def _of(folder: Path, cycle: int) -> Path:
    return Place(folder).alignment / str(cycle)
