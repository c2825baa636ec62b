"""Writes the world's data: prompts, demonstrations, annotated comparisons; the same bytes at the same seed.

`python -m components.worlds.helpdesk.generator --seed 7 --out data` writes what data.dvc pins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import click

from components.worlds.command import told_in_one_message, write_files
from components.worlds.helpdesk.annotators import ANNOTATORS, prefers_first
from components.worlds.helpdesk.draws import in_turns, pick, unseen
from components.worlds.helpdesk.pairs import PAIR_SOURCES, draw_pair
from components.worlds.helpdesk.prompts import make_prompts
from components.worlds.helpdesk.rubric import read_prompt
from components.worlds.helpdesk.writers import DEMONSTRATION_WRITERS, write

Row = dict[str, str]

# The dials of the answers.
DEMONSTRATION_COUNT = 6000
DEMONSTRATION_WORDS = range(7, 27)
LABELS_PER_PAIR = {1: 4500, 2: 1000, 3: 500}  # labels -> pairs; 8,000 rows
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


def make_demonstrations(prompts: list[Row], rng: Random) -> list[Row]:
    """Answers by writers of mixed quality, each prompt as often as any other, with a few planted faults."""
    seen: set[str] = set()
    rows: list[Row] = []
    turns = in_turns([row["prompt"] for row in prompts], rng)
    for _ in range(DEMONSTRATION_COUNT - sum(DEMONSTRATION_FAULTS.values())):
        prompt = next(turns)
        source, writer = pick(DEMONSTRATION_WRITERS, rng)
        draw = partial(write, read_prompt(prompt), writer, rng)
        answer = unseen(draw, seen, DEMONSTRATION_WORDS, prompt)
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
    turns = in_turns([row["prompt"] for row in prompts], rng)
    sources = list(PAIR_SOURCES)
    for number, count in enumerate(labels, start=1):
        prompt = next(turns)
        source = rng.choices(sources, list(PAIR_SOURCES.values()))[0]
        first, second = draw_pair(prompt, source, seen, rng)
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


@click.command()
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Of all random choices.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The folder to write to; made when missing."
)
@told_in_one_message
def main(seed: int, out: Path) -> None:
    """Write the helpdesk world's data: the same bytes at the same seed."""
    write_files(out, generate(seed))


if __name__ == "__main__":
    main()
