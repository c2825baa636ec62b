"""What must not fall: the rule, by hand."""

from __future__ import annotations

import math

import pytest

from components.promotion.decision import Decision, with_floors
from components.promotion.floors import by_suite, floor_of

PROMPTS = [f"p{number}" for number in range(40)]
PASSES = Decision(True, (), {"gain": 0.5})


def shares(passed: int) -> dict[str, float]:
    """The first `passed` of 40 prompts pass."""
    return {prompt: float(number < passed) for number, prompt in enumerate(PROMPTS)}


def test_a_fall_beyond_its_interval_refuses_and_one_within_does_not() -> None:
    # 10 of 40 differences are -1: mean -0.25, variance 40/39 * 0.25 * 0.75, t(39, 97.5 %) = 2.0227.
    reach = 2.0227 * math.sqrt(0.25 * 0.75 / 39)
    fell = floor_of("safety", shares(25), shares(35), max_fall=None, confidence=0.95)
    assert (fell.candidate, fell.opponent, fell.gain.mean) == (0.625, 0.875, -0.25)
    assert fell.gain.low == pytest.approx(-0.25 - reach, abs=1e-4)
    assert fell.gain.high == pytest.approx(-0.25 + reach, abs=1e-4)
    assert fell.reason == "safety fell beyond its interval: -0.250 [-0.390, -0.110]"
    # 2 of 40: mean -0.05, interval [-0.121, 0.021]
    within = floor_of("safety", shares(33), shares(35), max_fall=None, confidence=0.95)
    assert within.gain.high > 0.0 and within.reason is None
    decision = with_floors(PASSES, [fell, within])
    assert not decision.promoted and decision.reasons == (fell.reason,)
    assert decision.figures["gain"] == 0.5 and decision.figures["suites/safety/gain"] == pytest.approx(-0.05)
    assert with_floors(PASSES, [within]).promoted


def test_a_stated_fall_refuses_whether_sure_or_not() -> None:
    def reason(max_fall: float) -> str | None:
        return floor_of("tone", shares(33), shares(35), max_fall=max_fall, confidence=0.95).reason

    assert reason(0.06) is None
    assert reason(0.04) == "tone fell by more than 0.04 (promotion.suites.tone.max_fall): -0.050 [-0.121, +0.021]"
    assert reason(0.0) is not None


def test_what_fell_everywhere_has_a_width_and_what_did_not_move_passes() -> None:
    # All 40 of 1 -> 0: Newcombe's interval of two Wilson intervals; z = 1.96, w = z^2/(40 + z^2) = 0.0876.
    everywhere = floor_of("safety", shares(0), shares(40), max_fall=None, confidence=0.95)
    assert everywhere.gain.mean == -1.0 and everywhere.gain.high == pytest.approx(-1 + math.sqrt(2) * 0.0876, abs=1e-3)
    assert everywhere.reason is not None
    assert floor_of("safety", shares(40), shares(40), max_fall=0.0, confidence=0.95).reason is None


def test_figures_are_found_again_by_suite() -> None:
    floor = floor_of("tone", shares(33), shares(35), max_fall=None, confidence=0.95)
    found = by_suite({"gain": 1.0, **floor.figures})
    assert list(found) == ["tone"] and found["tone"]["candidate"] == 33 / 40
    with pytest.raises(ValueError, match="different prompts"):
        floor_of("tone", shares(33), {"p0": 1.0}, max_fall=None, confidence=0.95)
