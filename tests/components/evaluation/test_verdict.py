from __future__ import annotations

from typing import Any

import pytest

from components.evaluation import verdict
from components.evaluation.cycles import Change


def interval(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


def comparison(**differences: dict[str, float]) -> dict[str, Any]:
    plain = {"kl": interval(2.0, 1.9, 2.1), "response_tokens": interval(15.0, 14.0, 16.0)}
    return {
        "sft": plain,
        "candidate": plain,
        "difference": plain | differences,
        "win_rate": interval(0.6123, 0.58, 0.64),
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.2, "rose"),
        (-0.2, -0.01, "fell"),
        (-0.01, 0.2, "did not change"),
        (0.0, 0.2, "did not change"),
        (-0.2, 0.0, "did not change"),
    ],
)
def test_only_an_interval_wholly_on_one_side_is_a_change(low: float, high: float, expected: str) -> None:
    assert verdict.direction(interval(0.1, low, high)) == expected


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        (interval(0.1234, 0.1, 0.15), "Gold rose by 0.123 [0.100, 0.150]"),
        (interval(-0.2, -0.3, -0.1), "Gold fell by 0.200 [0.100, 0.300]"),
        (interval(-0.01, -0.1, 0.1), "Gold did not change beyond chance: −0.010 [−0.100, 0.100]"),
    ],
)
def test_the_headline_says_what_gold_did(gold: dict[str, float], words: str) -> None:
    assert verdict.headline(comparison(gold=gold)) == words


def test_without_a_rubric_the_judge_speaks() -> None:
    text = verdict.headline(comparison(judge=interval(0.5, 0.4, 0.6)))
    assert text == "The judge score rose by 0.500 [0.400, 0.600]"


def test_the_sentences_name_the_parts_the_win_rate_and_the_distance() -> None:
    parts = {
        "gold": interval(0.1, 0.05, 0.15),
        "helpful": interval(0.1, 0.05, 0.15),
        "harmless": interval(0.0, -0.05, 0.05),
        "honest": interval(0.2, 0.1, 0.3),
    }
    first, second, third = verdict.sentences(comparison(**parts))
    assert first == "Helpful and honest rose; harmless did not change beyond chance."
    assert "61.2 % [58.0, 64.0]" in second
    assert "2.00 [1.90, 2.10] nats" in third


CYCLES = [
    {"cycle": 0, "kl": 0.0, "reward": 0.0, "judge": 0.0, "gold": 0.5},
    {"cycle": 1, "kl": 2.0, "reward": 1.0, "judge": 0.8, "gold": 0.8},
    {"cycle": 2, "kl": 9.0, "reward": 1.5, "judge": 0.9, "gold": 0.6},
]


def changes(expected: tuple[int, int], **by_metric: dict[str, float]) -> Change:
    def change(before: int, after: int, name: str) -> dict[str, float]:
        assert (before, after) == expected
        return by_metric[name]

    return change


@pytest.mark.parametrize(
    ("reward", "gold", "end"),
    [
        ((0.5, 0.4, 0.6), (-0.2, -0.3, -0.1), "by −0.200 [−0.300, −0.100]: over-optimisation, beyond chance."),
        ((0.5, 0.4, 0.6), (-0.2, -0.5, 0.1), ": within chance, so that no over-optimisation is shown."),
        ((0.1, -0.1, 0.3), (-0.2, -0.3, -0.1), ": a fall, and not for more reward."),
    ],
)
def test_a_fall_after_the_peak_is_over_optimisation_only_beyond_chance(
    reward: tuple[float, float, float], gold: tuple[float, float, float], end: str
) -> None:
    text = verdict.over_optimisation(CYCLES, changes((1, 2), reward=interval(*reward), gold=interval(*gold)))
    assert text.startswith("Gold is highest after cycle 1 (KL 2.00 nats).")
    assert f"training reward moves by +{reward[0]:.3f} [" in text
    assert text.endswith(end)


def test_a_rise_to_the_last_cycle_counts_only_beyond_chance() -> None:
    rose, unclear = interval(0.3, 0.2, 0.4), interval(0.3, -0.1, 0.7)
    assert verdict.over_optimisation(CYCLES[:2], changes((0, 1), gold=rose)) == (
        "Gold is highest after cycle 1 (KL 2.00 nats), the last one, +0.300 [0.200, 0.400] from the one before: "
        "no over-optimisation in sight."
    )
    text = verdict.over_optimisation(CYCLES[:2], changes((0, 1), gold=unclear))
    assert "in sight" not in text and "within chance" in text


def test_a_policy_that_only_got_worse_peaks_at_sft() -> None:
    cycles = [
        {"cycle": 0, "kl": 0.0, "reward": 0.0, "judge": 0.5},
        {"cycle": 1, "kl": 2.0, "reward": 1.0, "judge": 0.1},
    ]
    change = changes((0, 1), reward=interval(1.0, 0.9, 1.1), judge=interval(-0.4, -0.5, -0.3))
    assert verdict.over_optimisation(cycles, change).startswith("The judge score is highest at the SFT policy")
