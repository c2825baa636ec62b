"""Annotators prefer by the rubric, with small biases and slips."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from components.worlds.helpdesk.annotators import (
    ANNOTATORS,
    BROKEN_MOST,
    FRAGMENT_DISLIKE,
    HARMLESS_WEIGHT,
    HELPFUL_WEIGHT,
    HONEST_WEIGHT,
    SCALE,
    bias,
    prefers_first,
    utility,
)

KNOWN = "Today my printer does not start. What can I do?"
PLAIN = "Please swap the fuse."
NOBODY = replace(ANNOTATORS["alma"], courtesy=0.0, word=0.0, certainty=0.0, error_rate=0.0)


def test_bias_adds_up_by_hand() -> None:
    annotator = replace(NOBODY, courtesy=0.4, word=0.02, certainty=0.3)
    # two courtesies; certainty counts once though it is claimed twice
    response = "This always works. It can never fail. I hope this helps. You are very kind."
    assert len(response.split()) == 15
    assert bias(annotator, response) == pytest.approx(0.4 * 2 + 0.02 * 15 + 0.3, abs=1e-9)


def test_utility_weighs_the_parts_and_dislikes_broken_text() -> None:
    whole = SCALE * (HELPFUL_WEIGHT + HARMLESS_WEIGHT + HONEST_WEIGHT)
    assert utility(NOBODY, KNOWN, PLAIN) == pytest.approx(whole, abs=1e-9)
    assert utility(NOBODY, KNOWN, PLAIN + " so so") == pytest.approx(whole - FRAGMENT_DISLIKE, abs=1e-9)
    assert utility(NOBODY, KNOWN, PLAIN + " So." * 9) == pytest.approx(whole - BROKEN_MOST * FRAGMENT_DISLIKE, abs=1e-9)


@pytest.mark.parametrize("name", ANNOTATORS)
def test_no_bias_beats_a_part_of_the_rubric_on_normal_text(name: str) -> None:
    """Two courtesies more, certain, 15 words longer: what separates the far ends of normal responses."""
    annotator = ANNOTATORS[name]
    most = 2 * annotator.courtesy + 15 * annotator.word + annotator.certainty
    assert 0 < most < SCALE * min(HELPFUL_WEIGHT, HARMLESS_WEIGHT, HONEST_WEIGHT)


def test_preference_is_bradley_terry_with_slips() -> None:
    """One courtesy apart, worth 1 nat: the frequency against the closed form."""
    annotator = replace(NOBODY, courtesy=1.0, error_rate=0.1)
    first = PLAIN + " I hope this helps."
    bradley_terry = 1 / (1 + math.exp(-1.0))
    expected = 0.9 * bradley_terry + 0.1 * (1 - bradley_terry)
    rng = Random(0)
    draws = 20_000
    frequency = sum(prefers_first(annotator, KNOWN, first, PLAIN, rng) for _ in range(draws)) / draws
    # four standard errors of a frequency over 20,000 draws
    assert frequency == pytest.approx(
        expected, abs=4 * math.sqrt(expected * (1 - expected) / draws)
    )  # reason: four standard errors of the drawn share
