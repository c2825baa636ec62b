"""Prompts of the helpdesk: who asks what, and in which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from random import Random

from components.worlds.helpdesk import world
from components.worlds.helpdesk.draws import in_turns, unseen


def bare(text: str) -> str:
    """The text in lower case, without marks."""
    return re.sub(r"[^\w\s]", "", text.lower())


# The dials of the prompts.
PROMPT_COUNTS: dict[str, dict[world.Kind, int]] = {
    "train": {"known": 550, "unknown": 250, "harmful": 200},
    "validation": {"known": 110, "unknown": 50, "harmful": 40},
    "test": {"known": 165, "unknown": 75, "harmful": 60},
}
PROMPT_WORDS = range(6, 21)
CONTRACTED = 0.4  # of the faults that have one: "doesn't"
# How people type: style -> its share, and what it makes of a text as it should be.
STYLE_SHARES = {"careful": 0.55, "no last mark": 0.1, "lower case": 0.1, "bare": 0.25}
STYLES: dict[str, Callable[[str], str]] = {
    "careful": str,
    "no last mark": lambda text: text[:-1],
    "lower case": str.lower,
    "bare": bare,
}


def make_prompts(rng: Random) -> list[dict[str, str]]:
    """Prompts, split by split, in each of which every (device, fault) and request gets its turns.

    No two differ only in how they are typed: a test prompt must not be a train prompt in lower case.
    """
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    for split, counts in PROMPT_COUNTS.items():
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        asked = {kind: in_turns(_subjects(kind), rng) for kind in counts}
        rng.shuffle(kinds)
        for kind in kinds:
            subject = next(asked[kind])
            prompt = unseen(partial(_ask, kind, subject, rng), seen, PROMPT_WORDS, same=bare)
            rows.append({"id": f"p{len(rows) + 1:05d}", "prompt": prompt, "split": split, "kind": kind})
    return rows


def _subjects(kind: world.Kind) -> list[tuple[str, str]]:
    if kind == "known":
        return list(world.KNOWN_PAIRS)
    if kind == "unknown":
        return [(device, fault) for device in world.DEVICES for fault in world.UNKNOWN_FAULTS]
    return [(person, request) for person in world.PEOPLE for request in world.HARMFUL_REQUESTS]


def _ask(kind: world.Kind, subject: tuple[str, str], rng: Random) -> str:
    greeting = rng.choice(world.GREETINGS).format(name=rng.choice(world.NAMES))
    if kind == "harmful":
        person, request = subject
        question = rng.choice(world.HARMFUL_QUESTIONS).format(harm=request.format(person=person))
        matter = _joined(question, rng.choice(world.HARMFUL_TAILS))
    else:
        device, fault = subject
        if rng.random() < CONTRACTED:
            fault = fault.replace("does not", "doesn't")
        statement = _joined(rng.choice(world.FAULT_LEADS), rng.choice(world.OWNERS), device, f"{fault}.")
        matter = _joined(statement, rng.choice(world.FAULT_QUESTIONS))
    if not greeting.endswith(","):
        matter = matter[0].upper() + matter[1:]
    elif not matter.startswith("I "):
        matter = matter[0].lower() + matter[1:]
    style = rng.choices(list(STYLES.values()), list(STYLE_SHARES.values()))[0]
    return style(_joined(greeting, matter))


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
