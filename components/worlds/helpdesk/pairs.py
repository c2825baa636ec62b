"""Pairs of responses for the annotators: sampled, restyled, redrafted, corrupted."""

from __future__ import annotations

from random import Random

from components.worlds.helpdesk.draws import pick
from components.worlds.helpdesk.rubric import read_prompt, read_response
from components.worlds.helpdesk.writers import COMPARISON_WRITERS, compose, substance, write

# The dials of the pairs.
PAIR_SOURCES = {"sampled": 0.4, "redrafted": 0.38, "restyled": 0.12, "corrupted": 0.1}
COMPARISON_WORDS = range(5, 41)


def draw_pair(prompt: str, source: str, seen: set[str], rng: Random) -> tuple[str, str]:
    """Two different responses, in no order, that the prompt has not had as a pair before."""
    request = read_prompt(prompt)
    while True:
        first_writer, second_writer = pick(COMPARISON_WRITERS, rng)[1], pick(COMPARISON_WRITERS, rng)[1]
        matter = substance(request, first_writer, rng)
        first = compose(matter, first_writer, rng)
        second = write(request, second_writer, rng)
        if source == "restyled":  # the same matter in another dress
            second = compose(matter, second_writer, rng)
        elif source == "redrafted":  # other matter in the same dress
            dress = rng.getrandbits(32)
            other_matter = substance(request, second_writer, rng)
            first, second = (compose(text, first_writer, Random(dress)) for text in (matter, other_matter))
        elif source == "corrupted":
            second = corrupt(second, rng)
            if not is_broken(second):  # cut at the end of a sentence, say
                continue
        key = "\n".join([prompt, *sorted((first, second))])
        too_long_or_short = [text for text in (first, second) if len(text.split()) not in COMPARISON_WORDS]
        if first != second and key not in seen and (source == "corrupted" or not too_long_or_short):
            seen.add(key)
            return (first, second) if rng.random() < 0.5 else (second, first)


def corrupt(response: str, rng: Random) -> str:
    """The response cut off, without a stretch, with a stretch said over and over, or with its words shuffled."""
    words = response.split()
    fault = rng.choice(("cut", "left out", "repeated", "shuffled"))
    if fault == "cut":
        return " ".join(words[: rng.randint(2, len(words) - 2)])
    start = rng.randrange(len(words) - 2)
    stop = start + rng.randint(1, 6)
    if fault == "left out":  # a word, or from within a sentence into another
        return " ".join(words[:start] + words[stop:])
    if fault == "repeated":
        return " ".join(words[:start] + words[start:stop] * rng.randint(2, 5))
    rng.shuffle(words)
    return " ".join(words)


def is_broken(response: str) -> bool:
    """Whether any of it is no sentence of the desk, or said twice."""
    reading = read_response(response)
    return reading.fragments + reading.repeats > 0
