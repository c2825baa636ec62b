"""How far a run has come, on a clock of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.graph import Stage
from flows.progress import Durations, Progress, clock, duration

# data.dvc -> a -> (b, c) -> d
GRAPH = {"data.dvc": (), "a": ("data.dvc",), "b": ("a",), "c": ("a",), "d": ("b", "c")}
SECONDS = {"a": 10.0, "b": 60.0, "c": 20.0, "d": 5.0}


class Run:
    """A run that is followed, with its clock in `now`."""

    def __init__(self, folder: Path, *changed: str, seconds: dict[str, float] = SECONDS) -> None:
        self.now, self.shown = 0.0, list[Any]()
        stages = [Stage(name, needs, name in changed) for name, needs in GRAPH.items()]
        self.durations = Durations(folder)
        for name, value in seconds.items():
            self.durations.note(name, value)
        self.progress = Progress(stages, self.durations, self, lambda: self.now)

    def follow(self, progress: Progress) -> None:
        pass

    def finished(self, *what: Any) -> None:
        self.shown.append(what)

    def warned(self, *what: Any) -> None:
        self.shown.append(what)


def test_pinned_data_is_no_stage_and_each_other_has_its_place(tmp_path: Path) -> None:
    progress = Run(tmp_path).progress
    assert [progress.place(name) for name in GRAPH] == ["", "1/4", "2/4", "3/4", "4/4"]
    progress.began("data.dvc")
    progress.ended("data.dvc", "pinned")
    assert str(progress) == "0 of 4 stages done"


def test_the_time_left_is_that_of_the_longest_way_through_what_is_left(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")  # what needs it may have to run, too
    progress = run.progress
    assert progress.seconds_left() == 10 + 60 + 5
    progress.began("a")
    run.now = 4.0
    assert progress.seconds_left() == 6 + 60 + 5
    run.now = 12.0  # longer than the last time
    assert progress.seconds_left() == 0 + 60 + 5
    progress.ended("a", "ran")
    progress.began("b")
    progress.began("c")
    assert str(progress) == "1 of 4 stages done, about 1 min left"  # 65 s, in tens
    progress.ended("b", "restored")
    assert progress.seconds_left() == 20 + 5
    progress.ended("c", "ran")
    progress.began("d")
    progress.ended("d", "unchanged")
    assert (str(progress), progress.seconds_left()) == ("4 of 4 stages done", 0.0)


def test_only_what_a_change_reaches_takes_time(tmp_path: Path) -> None:
    assert Run(tmp_path, "c").progress.seconds_left() == 20 + 5
    assert Run(tmp_path).progress.seconds_left() == 0.0


def test_nothing_is_said_of_the_time_left_where_one_stage_never_ran_here(tmp_path: Path) -> None:
    run = Run(tmp_path, "a", seconds={"a": 10.0, "b": 60.0, "d": 5.0})
    assert run.progress.seconds_left() is None
    assert str(run.progress) == "0 of 4 stages done"
    assert Run(tmp_path / "other", "d", seconds={"d": 5.0}).progress.seconds_left() == 5.0  # c has nothing to do


def test_a_stage_that_counts_its_steps_goes_by_them(tmp_path: Path) -> None:
    run = Run(tmp_path, "d")
    progress = run.progress
    progress.began("d")
    run.now = 30.0
    # The second of three cycles: its first iteration is the sixth. Before it, models were loaded for 30 s.
    progress.heard("d", "ppo: cycle 2, iteration 6 of 10, reward +0.713")
    assert progress.seconds_left() == 0.0  # one step has no pace: by the last time, which is over
    run.now = 38.0
    progress.heard("d", "ppo: cycle 2, iteration 8 of 10, reward +0.899")
    assert progress.seconds_left() == pytest.approx(2 * 4.0)
    run.now = 40.0
    progress.heard("d", "a line of another kind")
    assert progress.seconds_left() == pytest.approx(6.0)
    assert progress.done() == pytest.approx(40 / 46)
    assert progress.at_work["d"].line == "a line of another kind"


def test_what_a_stage_took_is_kept_where_it_ran(tmp_path: Path) -> None:
    run = Run(tmp_path, "a", seconds={})
    for name, outcome in (("a", "ran"), ("b", "restored"), ("c", "failed"), ("d", "unchanged")):
        run.progress.began(name)
        run.now += 7.0
        run.progress.ended(name, outcome)
    assert Durations(tmp_path).read() == {"a": 7.0}
    assert run.shown == [("a", "ran", 7.0), ("b", "restored", 7.0), ("c", "failed", 7.0), ("d", "unchanged", 7.0)]
    (tmp_path / ".work/stage_seconds.json").write_text("{")  # a guess is not worth an error
    assert Durations(tmp_path).read() == {}


def test_warnings_are_shown_and_other_lines_are_not(tmp_path: Path) -> None:
    run = Run(tmp_path, "a")
    run.progress.began("a")
    for line in ("step 1 of 2", "  warning: it repeats itself", "warning: it does not end", "no warning: this"):
        run.progress.heard("a", line)
    assert run.shown == [("a", "warning: it repeats itself"), ("a", "warning: it does not end")]
    assert run.progress.at_work["a"].line == "no warning: this"


def test_another_try_of_a_stage_is_not_done_before_it_ends(tmp_path: Path) -> None:
    progress = Run(tmp_path, "a").progress
    progress.began("a")
    progress.ended("a", "failed")
    progress.began("a")
    assert str(progress).startswith("0 of 4 stages done")


@pytest.mark.parametrize(
    ("seconds", "words", "shown"),
    [(4.4, "4 s", "0:04"), (61, "1 min", "1:01"), (128, "2 min 10 s", "2:08"), (754, "12 min", "12:34")],
)
def test_durations_as_people_say_them_and_as_a_clock_does(seconds: float, words: str, shown: str) -> None:
    assert (duration(seconds), clock(seconds)) == (words, shown)
