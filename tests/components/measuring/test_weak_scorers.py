"""What counts as a scorer that is not worth hearing."""

from __future__ import annotations

import pytest

from components.measuring.weak_scorers import margin_over_baseline, unmeasured, weakness


def metrics(accuracy: float, longer_wins: float) -> dict[str, float]:
    return {
        "accuracy_heldout": accuracy,
        "longer_wins_accuracy_heldout": longer_wins,
        "comparisons_heldout": 320,
    }


@pytest.mark.parametrize(("accuracy", "longer_wins"), [(0.81, 0.80), (0.80, 0.80), (0.51, 0.2), (1.0, 1.0)])
def test_a_scorer_that_does_not_lose_is_not_weak(accuracy: float, longer_wins: float) -> None:
    assert weakness("judge", metrics(accuracy, longer_wins)) is None
    assert margin_over_baseline(accuracy, longer_wins) >= 0


def test_a_scorer_that_loses_to_length_or_to_chance_is_weak() -> None:
    assert weakness("judge", metrics(0.691, 0.802)) == (
        'the judge is right on 69.1% of 320 comparisons of unseen prompts, less than "the longer answer wins" (80.2%)'
    )
    assert weakness("reward model", metrics(0.45, 0.3)) == (
        "the reward model is right on 45.0% of 320 comparisons of unseen prompts, less than chance (50.0%)"
    )
    assert margin_over_baseline(0.691, 0.802) == pytest.approx(-0.111)
    assert margin_over_baseline(0.45, 0.3) == pytest.approx(-0.05)


def test_a_scorer_that_was_held_against_no_comparisons_is_not_called_weak_but_unknown() -> None:
    assert weakness("judge", {"comparisons_heldout": 0}) is None
    assert unmeasured("judge", {"comparisons_heldout": 0}) == (
        "how often the judge prefers the better response is not known: it was held against no comparisons"
    )
    assert unmeasured("judge", metrics(0.7, 0.5)) is None
