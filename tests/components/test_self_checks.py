"""A check notes what is found, tells of it, and stops what goes on from there."""

from __future__ import annotations

import logging

import pytest

from components.errors import ProximalError, TrainingError
from components.self_checks import Check, Checks

LENGTHS = Check("lengths", "rods that are too long", 2.0, "of 9")
WORDS = {"fault": "the rods do not fit", "do": "saw them off"}


def test_figures_are_told_noted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, float, int]] = []
    checks = Checks(lambda *figure: told.append(figure))
    with caplog.at_level(logging.INFO, logger="proximal"):
        for step, found in enumerate((1.0, 2.0, 0.0), start=1):
            checks.hold(LENGTHS, found, where=f"house {step}", step=step, **WORDS)
    assert told == [("lengths", 1.0, 1), ("lengths", 2.0, 2), ("lengths", 0.0, 3)]
    row = {
        "name": "lengths",
        "what": "rods that are too long",
        "bound": 2.0,
        "unit": "of 9",
        "largest": 2.0,
        "times": 3,
    }
    assert checks.rows() == [row]
    assert caplog.messages == ["house 1: rods that are too long 1 of 9 (at most 2)"]


@pytest.mark.parametrize("found", [2.5, float("inf"), float("nan")])
def test_what_is_above_its_bound_stops_the_run_and_is_told_first(found: float) -> None:
    told: list[float] = []
    checks = Checks(lambda name, figure, step: told.append(figure))
    with pytest.raises(TrainingError) as caught:
        checks.hold(LENGTHS, found, where="house 1", detail="rods 3 and 4", **WORDS)
    error = caught.value
    assert isinstance(error, ProximalError)
    assert (error.what, error.where, error.do) == ("the rods do not fit", "house 1", "saw them off")
    assert error.expected == "rods that are too long: at most 2 of 9"
    assert error.found == f"{found:.3g} of 9, rods 3 and 4"
    assert len(told) == 1 and checks.rows() == []


def test_what_is_not_kept_is_told_and_leaves_no_row() -> None:
    told: list[str] = []
    checks = Checks(lambda name, figure, step: told.append(name))
    checks.hold(LENGTHS, 0.0, where="here", is_kept=False, **WORDS)
    assert told == ["lengths"] and checks.rows() == []


def test_an_interrupted_cycle_goes_on_counting(caplog: pytest.LogCaptureFixture) -> None:
    whole, told = Checks(), []
    for found in (1.0, 0.5, 2.0):
        whole.hold(LENGTHS, found, where="here", **WORDS)
    first = Checks()
    first.hold(LENGTHS, 1.0, where="here", **WORDS)
    second = Checks(lambda *figure: told.append(figure))
    second.go_on(first.rows(), step=1)
    caplog.clear()
    for found in (0.5, 2.0):
        second.hold(LENGTHS, found, where="here", **WORDS)
    assert second.rows() == whole.rows()
    assert told[0] == ("lengths", 1.0, 1) and len(told) == 3
    assert caplog.messages == []


def test_of_several_processes_one_speaks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="proximal"):
        Checks(speaks=False).hold(LENGTHS, 0.0, where="here", **WORDS)
    assert caplog.messages == []
