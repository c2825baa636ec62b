"""What a stage's task says: into Prefect's log of it, and of how far the run has come."""

from __future__ import annotations

import time
from types import TracebackType

from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.outcome import Outcome
from flows.progress import TOLD, progress_of


class Talk:
    """One stage from its begin to its end, which is a failure where nothing else was said when the block ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress = progress_of(str(flow_run.id))
        self._logger = get_run_logger()
        self._start = time.monotonic()
        self._has_ended = False

    def __enter__(self) -> Talk:
        self._progress.began(self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._has_ended:
            self._progress.ended(self._name, "failed")

    def line(self, line: str) -> None:
        """A line of the stage's own."""
        self._logger.info(line, extra={TOLD: True})
        self._progress.heard(self._name, line)

    def end(self, outcome: Outcome) -> None:
        """It is done."""
        self._has_ended = True
        self._progress.ended(self._name, outcome)
        took = "" if outcome is Outcome.UNCHANGED else f", {time.monotonic() - self._start:.0f} s"
        self._logger.info("%s%s; %s", outcome, took, self._progress, extra={TOLD: True})

    def fail(self, why: str, *, stopped: bool = False) -> None:
        """It has failed, or was stopped with the run."""
        self._has_ended = True
        what = "stopped" if stopped else "failed"
        self._progress.ended(self._name, what)
        self._logger.error("%s, %.0f s%s", what, time.monotonic() - self._start, why, extra={TOLD: not why})
