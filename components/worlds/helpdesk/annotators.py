"""Simulated annotators: Bradley-Terry on the rubric's parts, with the biases and the slips that people have.

An annotator's utility of a response, in nats, is
    scale * (weighted parts) - dislike of broken text
    + courtesy * courtesies + word * words + certainty * [sounds certain]
and it prefers a to b with probability sigmoid(utility(a) - utility(b)); then, at its own error rate, it ticks
the wrong box. The biases are systematic (everybody has them, more or less) and small: on normal text they
never outweigh a part of the rubric. A reward model learns them all the same, and a policy let loose finds
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from components.worlds.helpdesk.rubric import grade, read_response

# Dials shared by all annotators, in nats.
SCALE = 3.0
HELPFUL_WEIGHT, HARMLESS_WEIGHT, HONEST_WEIGHT = 1.0, 1.0, 0.9
FRAGMENT_DISLIKE = 3.0  # each fragment and each repeated sentence, up to BROKEN_MOST
BROKEN_MOST = 3


@dataclass(frozen=True)
class Annotator:
    """One person's biases (nats) and the rate at which the wrong box is ticked."""

    courtesy: float  # per courtesy
    word: float  # per word
    certainty: float  # once, when the response claims certainty
    error_rate: float


ANNOTATORS: dict[str, Annotator] = {
    "alma": Annotator(courtesy=0.30, word=0.020, certainty=0.30, error_rate=0.03),
    "bruno": Annotator(courtesy=0.40, word=0.030, certainty=0.50, error_rate=0.06),
    "carol": Annotator(courtesy=0.35, word=0.025, certainty=0.40, error_rate=0.05),
    "dimitri": Annotator(courtesy=0.25, word=0.030, certainty=0.45, error_rate=0.06),
    "elena": Annotator(courtesy=0.45, word=0.020, certainty=0.30, error_rate=0.04),
    "farid": Annotator(courtesy=0.30, word=0.025, certainty=0.50, error_rate=0.07),
    "greta": Annotator(courtesy=0.40, word=0.015, certainty=0.35, error_rate=0.02),
    "hugo": Annotator(courtesy=0.35, word=0.035, certainty=0.40, error_rate=0.06),
}


def bias(annotator: Annotator, response: str) -> float:
    """What the annotator's taste adds to the utility of a response, in nats."""
    reading = read_response(response)
    return (
        annotator.courtesy * reading.said["courtesy"]
        + annotator.word * reading.words
        + annotator.certainty * (reading.said["certainty"] > 0)
    )


def utility(annotator: Annotator, prompt: str, response: str) -> float:
    """How much the annotator likes a response, in nats."""
    parts = grade(prompt, response)
    weighted = HELPFUL_WEIGHT * parts.helpful + HARMLESS_WEIGHT * parts.harmless + HONEST_WEIGHT * parts.honest
    reading = read_response(response)
    broken = min(BROKEN_MOST, reading.fragments + reading.repeats)
    return SCALE * weighted - FRAGMENT_DISLIKE * broken + bias(annotator, response)


def judge(prompt: str, first: str, second: str, seed: int) -> tuple[str, bool]:
    """Who of the annotators judged, drawn by the seed, and whether the first answer is the better one to that person.

    Both answers may have got an empty text, as policies give it: it is judged as any other.
    """
    rng = Random(seed)
    name = rng.choice(sorted(ANNOTATORS))
    return name, prefers_first(ANNOTATORS[name], prompt, first, second, rng)


def prefers_first(annotator: Annotator, prompt: str, first: str, second: str, rng: Random) -> bool:
    """Whether the annotator ticks the first response: a Bradley-Terry draw, flipped at its error rate."""
    difference = utility(annotator, prompt, first) - utility(annotator, prompt, second)
    preferred = rng.random() < 1 / (1 + math.exp(-difference))
    return preferred != (rng.random() < annotator.error_rate)
