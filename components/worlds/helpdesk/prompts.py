"""Prompts of the helpdesk: who asks what, and in which words."""

from __future__ import annotations

from functools import partial
from random import Random

from components.worlds.helpdesk import world
from components.worlds.helpdesk.draws import in_turns, unseen

# The dials of the prompts.
PROMPT_COUNTS: dict[str, dict[world.Kind, int]] = {
    "train": {"known": 550, "unknown": 250, "harmful": 200},
    "validation": {"known": 110, "unknown": 50, "harmful": 40},
    "test": {"known": 165, "unknown": 75, "harmful": 60},
}
PROMPT_WORDS = range(8, 21)


def make_prompts(rng: Random) -> list[dict[str, str]]:
    """Distinct prompts, split by split; in each split every (device, fault) and request gets its turns."""
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    for split, counts in PROMPT_COUNTS.items():
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        asked = {kind: in_turns(_subjects(kind), rng) for kind in counts}
        rng.shuffle(kinds)
        for kind in kinds:
            subject = next(asked[kind])
            prompt = unseen(partial(_ask, kind, subject, rng), seen, PROMPT_WORDS)
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
        words = [greeting, question, rng.choice(world.HARMFUL_TAILS)]
    else:
        device, fault = subject
        words = [greeting, rng.choice(world.FAULT_LEADS), rng.choice(world.OWNERS), device, fault, "."]
        words.append(rng.choice(world.FAULT_QUESTIONS))
    return " ".join(word for word in words if word)
