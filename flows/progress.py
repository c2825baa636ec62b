"""How far a run has come: which stages are done, which are at work and at what, and how long the rest may take.

What it tells goes into the stages' log lines and, where a person sits at a terminal, to `flows.desk`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.artifacts import write_json
from components.place import Place
from flows.graph import Stage

_STEPS = re.compile(r"\b(?:step|iteration) (\d+) of (\d+)")
TOLD = "told_by_progress"  # marks log records that say what a view shows in its own way
_PINS = ".dvc"  # pinned data: nothing to do with it, and no stage to people


@dataclass
class Work:
    """A stage at work.

    Args:
        since: when it began, in seconds of the clock.
        line: what it said last.
        first: (step, when) of the first step that it told of; `last` has the total, too.
    """

    since: float
    line: str = ""
    first: tuple[int, float] | None = None
    last: tuple[int, int, float] | None = None

    def hear(self, line: str, now: float) -> None:
        self.line = line
        if found := _STEPS.search(line):
            step, total = int(found[1]), int(found[2])
            self.first = self.first or (step, now)
            self.last = (step, total, now)

    def seconds_left(self, now: float, last_time: float | None) -> float | None:
        """By its own steps, else by what it took the last time; None where neither is known."""
        if self.first and self.last and self.last[0] > self.first[0]:
            step, total, told = self.last
            pace = (told - self.first[1]) / (step - self.first[0])
            return max(0.0, (total - step) * pace - (now - told))
        return None if last_time is None else max(0.0, last_time - (now - self.since))


class View(Protocol):
    """Who shows a run while it goes on; see `flows.desk`."""

    def follow(self, progress: Progress) -> None: ...
    def finished(self, name: str, outcome: str, seconds: float) -> None: ...
    def warned(self, name: str, line: str) -> None: ...


class Progress:
    """How far one run has come.

    Args:
        stages: in graph order; pinned data among them does not count.
        durations: knows what each took when it last ran, and is told what it takes now.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        durations: Durations | None = None,
        view: View | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stages = [stage for stage in stages if not stage.name.endswith(_PINS)]
        self.at_work: dict[str, Work] = {}
        self._done: set[str] = set()
        self._expected = _expected(stages)
        self._durations, self._view, self._clock = durations, view, clock
        self._seconds = durations.read() if durations else {}
        self._lock = threading.RLock()
        if view is not None:
            view.follow(self)

    def began(self, name: str) -> None:
        """A stage is being looked at, or brought up to date."""
        with self._lock:
            self._done.discard(name)  # another try
            self.at_work[name] = Work(self._clock())

    def heard(self, name: str, line: str) -> None:
        """A stage said something."""
        if not line.lstrip().startswith("warning: "):
            with self._lock:
                self.at_work[name].hear(line, self._clock())
        elif self._view is not None:
            self._view.warned(name, line.strip())

    def ended(self, name: str, outcome: str) -> None:
        """A stage is done, or has failed."""
        with self._lock:
            seconds = self._clock() - self.at_work.pop(name).since
            self._done.add(name)
            if self._durations and outcome == "ran":
                self._durations.note(name, seconds)
        if self._view is not None and not name.endswith(_PINS):
            self._view.finished(name, outcome, seconds)

    def place(self, name: str) -> str:
        """Which of them a stage is, e.g. 3/10."""
        names = [stage.name for stage in self.stages]
        return f"{names.index(name) + 1}/{len(names)}" if name in names else ""

    def seconds_of(self, work: Work) -> float:
        """How long a stage has been at work."""
        return self._clock() - work.since

    def done(self) -> float:
        """How many stages are done, those at work in part."""
        now = self._clock()
        with self._lock:
            whole = sum(stage.name in self._done for stage in self.stages)
            parts = (self._share(name, work, now) for name, work in self.at_work.items() if not name.endswith(_PINS))
            return whole + sum(parts)

    def _share(self, name: str, work: Work, now: float) -> float:
        left = work.seconds_left(now, self._seconds.get(name))
        gone = now - work.since
        return gone / (gone + left) if left else 0.0

    def seconds_left(self) -> float | None:
        """Until the last stage ends, with those side by side that can be; None where that of one is not known."""
        now = self._clock()
        ends: dict[str, float] = {}
        with self._lock:
            for stage in self.stages:
                left = self._left(stage.name, now)
                if left is None:
                    return None
                ends[stage.name] = left + max((ends[name] for name in stage.upstream if name in ends), default=0.0)
        return max(ends.values(), default=0.0)

    def _left(self, name: str, now: float) -> float | None:
        if name in self._done or (name not in self._expected and name not in self.at_work):
            return 0.0
        if work := self.at_work.get(name):
            return work.seconds_left(now, self._seconds.get(name))
        return self._seconds.get(name)

    def __str__(self) -> str:
        with self._lock:
            done = f"{sum(stage.name in self._done for stage in self.stages)} of {len(self.stages)} stages done"
        left = self.seconds_left()
        return done if not left else f"{done}, about {duration(left)} left"


def clock(seconds: float) -> str:
    """As a clock shows it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    return f"{minutes:.0f} min" + (f" {rest:.0f} s" if rest and minutes < 10 else "")


def _expected(stages: Sequence[Stage]) -> set[str]:
    """The stages that may have something to do: they have changed, or one that they need may."""
    expected: set[str] = set()
    for stage in stages:
        if stage.changed or expected.intersection(stage.upstream):
            expected.add(stage.name)
    return expected


class Durations:
    """What each stage took when it last ran on this machine, in a file of the repository's work folder."""

    def __init__(self, repository: Path) -> None:
        self._file = Place(repository).work / "stage_seconds.json"

    def read(self) -> dict[str, float]:
        try:
            content: dict[str, float] = json.loads(self._file.read_text())
        except (OSError, ValueError):  # not there yet; it is a guess at most
            return {}
        return content

    def note(self, name: str, seconds: float) -> None:
        write_json(self._file, self.read() | {name: round(seconds, 1)})


_RUNS: dict[str, Progress] = {}
_VIEWS: list[View] = []  # at most one: a process has one terminal


def progress_of(flow_run: str) -> Progress:
    """Of a flow run; a task that runs elsewhere than its flow gets one of its own."""
    return _RUNS.get(flow_run) or Progress(())


@contextmanager
def followed(flow_run: str, stages: Sequence[Stage], repository: Path) -> Iterator[None]:
    """Follow the stages of a flow run until the end of the block."""
    _RUNS[flow_run] = Progress(stages, Durations(repository), _VIEWS[-1] if _VIEWS else None)
    try:
        yield
    finally:
        del _RUNS[flow_run]


@contextmanager
def shown_by(view: View) -> Iterator[None]:
    """Let a view show what runs in this process until the end of the block."""
    _VIEWS.append(view)
    try:
        yield
    finally:
        _VIEWS.remove(view)
