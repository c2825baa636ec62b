"""Writes the world's data: prompts, demonstrations, annotated comparisons; the same bytes at the same seed.

`python -m components.worlds.helpdesk.generator --seed 7 --out data` writes what data.dvc pins.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from components.artifacts import write_jsonl
from components.errors import USER_ERROR_STATUS, ProximalError
from components.worlds.helpdesk import world
from components.worlds.helpdesk.annotators import ANNOTATORS, prefers_first
from components.worlds.helpdesk.rubric import read_prompt, read_response
from components.worlds.helpdesk.writers import (
    COMPARISON_WRITERS,
    DEMONSTRATION_WRITERS,
    Writer,
    compose,
    substance,
    write,
)

Row = dict[str, str]
T = TypeVar("T")

_DESCRIPTION = "Write the helpdesk world's data: the same bytes at the same seed."

# The dials of the data.
PROMPT_COUNTS: dict[str, dict[world.Kind, int]] = {
    "train": {"known": 550, "unknown": 250, "harmful": 200},
    "validation": {"known": 110, "unknown": 50, "harmful": 40},
    "test": {"known": 165, "unknown": 75, "harmful": 60},
}
PROMPT_WORDS = range(8, 21)
DEMONSTRATION_COUNT = 6000
DEMONSTRATION_WORDS = range(9, 31)
LABELS_PER_PAIR = {1: 4500, 2: 1000, 3: 500}  # labels -> pairs; 8,000 rows
PAIR_SOURCES = {"sampled": 0.43, "redrafted": 0.4, "restyled": 0.12, "corrupted": 0.05}
COMPARISON_WORDS = range(6, 49)
# Faults that raw data has and validation must find: kind -> rows.
DEMONSTRATION_FAULTS = {"empty": 5, "duplicate": 6, "overlong": 4}
COMPARISON_FAULTS = {"equal": 6, "duplicate": 5, "empty": 3}
OVERLONG_REPEATS = 12


def generate(seed: int) -> dict[str, list[Row]]:
    """All rows by file name. Each file has its own random stream: one file's dials leave the others alone."""
    prompts = make_prompts(Random(f"{seed} prompts"))
    train = [row for row in prompts if row["split"] == "train"]
    return {
        "prompts.jsonl": prompts,
        "demonstrations.jsonl": make_demonstrations(train, Random(f"{seed} demonstrations")),
        "comparisons.jsonl": make_comparisons(train, Random(f"{seed} comparisons")),
    }


def make_prompts(rng: Random) -> list[Row]:
    """Distinct prompts, split by split; in each split every (device, fault) and request gets its turns."""
    seen: set[str] = set()
    rows: list[Row] = []
    for split, counts in PROMPT_COUNTS.items():
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        asked = {kind: _turns(_subjects(kind), rng) for kind in counts}
        rng.shuffle(kinds)
        for kind in kinds:
            subject = next(asked[kind])
            prompt = _unseen(partial(_ask, kind, subject, rng), seen, PROMPT_WORDS)
            rows.append({"id": f"p{len(rows) + 1:05d}", "prompt": prompt, "split": split, "kind": kind})
    return rows


def make_demonstrations(prompts: list[Row], rng: Random) -> list[Row]:
    """Answers by writers of mixed quality, each prompt as often as any other, with a few planted faults."""
    seen: set[str] = set()
    rows: list[Row] = []
    turns = _turns([row["prompt"] for row in prompts], rng)
    for _ in range(DEMONSTRATION_COUNT - sum(DEMONSTRATION_FAULTS.values())):
        prompt = next(turns)
        source, writer = _pick(DEMONSTRATION_WRITERS, rng)
        draw = partial(write, read_prompt(prompt), writer, rng)
        answer = _unseen(draw, seen, DEMONSTRATION_WORDS, prompt)
        rows.append({"prompt": prompt, "response": answer, "source": source})
    faults: dict[str, Callable[[Row], Row]] = {
        "empty": lambda row: row | {"response": ""},
        "duplicate": dict,
        "overlong": lambda row: row | {"response": " ".join([row["response"]] * OVERLONG_REPEATS)},
    }
    return _numbered("d", _with_faults(rows, faults, DEMONSTRATION_FAULTS, rng))


def make_comparisons(prompts: list[Row], rng: Random) -> list[Row]:
    """Pairs of responses, each labelled by one to three annotators, with a few planted faults."""
    seen: set[str] = set()
    rows: list[Row] = []
    labels = [count for count, pairs in LABELS_PER_PAIR.items() for _ in range(pairs)]
    rng.shuffle(labels)
    turns = _turns([row["prompt"] for row in prompts], rng)
    sources = list(PAIR_SOURCES)
    for number, count in enumerate(labels, start=1):
        prompt = next(turns)
        source = rng.choices(sources, list(PAIR_SOURCES.values()))[0]
        first, second = _pair(prompt, source, seen, rng)
        for annotator in rng.sample(sorted(ANNOTATORS), count):
            chosen, rejected = first, second
            if not prefers_first(ANNOTATORS[annotator], prompt, first, second, rng):
                chosen, rejected = second, first
            rows.append(
                {
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                    "source": source,
                    "annotator": annotator,
                    "pair": f"q{number:05d}",
                }
            )
    rng.shuffle(rows)
    faults: dict[str, Callable[[Row], Row]] = {
        "equal": lambda row: row | {"rejected": row["chosen"]},
        "duplicate": dict,
        "empty": lambda row: row | {"rejected": ""},
    }
    spare = sum(COMPARISON_FAULTS.values())
    return _numbered("c", _with_faults(rows[:-spare], faults, COMPARISON_FAULTS, rng))


def corrupt(response: str, rng: Random) -> str:
    """The response cut off, with a stretch said over and over, or with its words shuffled."""
    words = response.split()
    fault = rng.choice(("cut", "repeated", "shuffled"))
    if fault == "cut":
        return " ".join(words[: rng.randint(2, len(words) - 3)])
    if fault == "repeated":
        start = rng.randrange(len(words) - 3)
        stretch = words[start : start + rng.randint(1, 6)]
        return " ".join(words[:start] + stretch * rng.randint(3, 5))
    rng.shuffle(words)
    return " ".join(words)


def is_broken(response: str) -> bool:
    """Whether any of it is no sentence of the desk, or said twice."""
    reading = read_response(response)
    return reading.fragments + reading.repeats > 0


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


def _pair(prompt: str, source: str, seen: set[str], rng: Random) -> tuple[str, str]:
    """Two different responses, in no order, that the prompt has not had as a pair before."""
    request = read_prompt(prompt)
    while True:
        first_writer, second_writer = _pick(COMPARISON_WRITERS, rng)[1], _pick(COMPARISON_WRITERS, rng)[1]
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


def _unseen(draw: Callable[[], str], seen: set[str], words: range, context: str = "") -> str:
    """The first draw of a fitting length that is new in its context."""
    while True:
        text = draw()
        if len(text.split()) in words and (context + text) not in seen:
            seen.add(context + text)
            return text


def _turns(items: list[T], rng: Random) -> Iterator[T]:
    """The items in random order, all of them before any comes again."""
    while True:
        yield from rng.sample(items, len(items))


def _pick(writers: dict[str, tuple[float, Writer]], rng: Random) -> tuple[str, Writer]:
    name = rng.choices(list(writers), [share for share, _ in writers.values()])[0]
    return name, writers[name][1]


def _with_faults(
    rows: list[Row], faults: dict[str, Callable[[Row], Row]], counts: dict[str, int], rng: Random
) -> list[Row]:
    """The rows with faulty copies of some of them put in at random places."""
    result = list(rows)
    for fault, count in counts.items():
        for row in rng.sample(rows, count):
            result.insert(rng.randrange(len(result) + 1), faults[fault](row))
    return result


def _numbered(prefix: str, rows: list[Row]) -> list[Row]:
    return [{"id": f"{prefix}{number:05d}"} | row for number, row in enumerate(rows, start=1)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.worlds.helpdesk.generator", description=_DESCRIPTION)
    parser.add_argument("--seed", type=_seed, required=True, help="a whole number, 0 or more")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to; made when missing")
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: expected a folder that can be written to, found: {error}")
    files = generate(arguments.seed)
    try:
        for name, rows in files.items():
            write_jsonl(out / name, rows)
            print(f"{out / name}: {len(rows)} rows")
    except ProximalError as error:
        print(error, file=sys.stderr)
        return USER_ERROR_STATUS
    return 0


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
