"""Writes the world's data: prompts, demonstrations, compared walks; the same bytes at the same seed.

A prompt is two marks and the start's letter, such as `v x b`; the response is the rest of the walk. The marks are
letters that name no node, and they say nothing: the task is the same whatever they are. They are there because the
published task has 20 prompts and is evaluated on the same 20, while here no two splits may share a prompt. Each split
has pairs of marks of its own, and asks for every start equally often, so the oracle's means hold for each split. Each
mark is in the training prompts at either place as often as any other; only the pairs are new in the other splits.

Walks are drawn independently, so some come again. They are draws, not copies: their number, in the column `walk`, and
the number of a comparison's label, its id, tell them apart.
"""

from __future__ import annotations

import math
from itertools import product
from random import Random
from typing import Any

from components.errors import ConfigError
from components.worlds.randomwalks.graph import GOAL, MAX_LETTERS, Graph, letter_of, make_graph

Row = dict[str, Any]

WALKS = 1000
COMPARISONS = 4000
LABEL_SCALE = 5.0

SPLITS = ("train", "validation", "test")
SOURCE = "random_walk"
_MARKS = "vwxyz"


def generate(
    seed: int, walks: int = WALKS, comparisons: int = COMPARISONS, label_scale: float = LABEL_SCALE
) -> dict[str, list[Row]]:
    """All rows by file name, on the graph of the seed. Each file has its own random stream.

    Raises:
        ConfigError: a seed or label scale out of range, or a graph where no walk is worth anything.
    """
    graph = make_graph(seed)
    if not any(graph.is_solvable(start) for start in graph.starts):
        raise ConfigError(
            "there is nothing to learn on this graph",
            where=f"seed {seed}",
            expected="a start from which some walk of less than ten letters reaches the goal",
            found="none",
            do="choose another seed",
        )
    return {
        "prompts.jsonl": make_prompts(graph),
        "demonstrations.jsonl": make_demonstrations(graph, walks, Random(f"{seed} demonstrations")),
        "comparisons.jsonl": make_comparisons(graph, comparisons, label_scale, Random(f"{seed} comparisons")),
    }


def make_prompts(graph: Graph) -> list[Row]:
    """Every pair of marks with every start."""
    asked = [
        {"prompt": _prompt(marks, start), "split": split}
        for split in SPLITS
        for marks in _mark_pairs(split)
        for start in graph.starts
    ]
    return [{"id": f"p{number:05d}"} | row for number, row in enumerate(asked, start=1)]


def make_demonstrations(graph: Graph, count: int, rng: Random) -> list[Row]:
    """Walks of the behaviour policy from uniformly drawn training prompts."""
    marks = _mark_pairs("train")
    rows = []
    for number in range(1, count + 1):
        walk = random_walk(graph, rng.choice(graph.starts), rng)
        rows.append(
            {
                "id": f"d{number:05d}",
                "prompt": _prompt(rng.choice(marks), walk[0]),
                "response": _response(walk),
                "source": SOURCE,
                "walk": number,
            }
        )
    return rows


def make_comparisons(graph: Graph, count: int, label_scale: float, rng: Random) -> list[Row]:
    """Two different walks of the behaviour policy from one training prompt, labelled by Bradley-Terry.

    P(first is chosen) = sigmoid(label_scale * (optimality(first) - optimality(second))). So a reward model learns
    label_scale * optimality up to a constant per prompt, and the optimum of DPO at its beta is the oracle's at
    beta / label_scale. Starts that only one walk leaves have no comparisons.

    Raises:
        ConfigError: a label scale that is negative or not finite.
    """
    if not (label_scale >= 0 and math.isfinite(label_scale)):
        raise ConfigError(
            "the label scale is out of range",
            where="label_scale",
            expected="a finite number, 0 (labels by chance) or more",
            found=str(label_scale),
        )
    marks = _mark_pairs("train")
    starts = [start for start in graph.starts if _has_two_walks(graph, start)]
    pairs: dict[tuple[str, ...], str] = {}
    rows = []
    for number in range(1, count + 1):
        start = rng.choice(starts)
        prompt = _prompt(rng.choice(marks), start)
        first, second = _two_walks(graph, start, rng)
        margin = label_scale * (_worth(graph, first) - _worth(graph, second))
        if rng.random() >= 0.5 * (1 + math.tanh(margin / 2)):  # the sigmoid, in a form that cannot overflow
            first, second = second, first
        chosen, rejected = _response(first), _response(second)
        pair = pairs.setdefault((prompt, *sorted((chosen, rejected))), f"q{len(pairs) + 1:05d}")
        rows.append(
            {
                "id": f"c{number:05d}",
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "source": SOURCE,
                "pair": pair,
            }
        )
    return rows


def random_walk(graph: Graph, start: int, rng: Random) -> list[int]:
    """A walk of the behaviour policy: to a uniformly drawn successor, until at the goal or ten letters long."""
    walk = [start]
    while walk[-1] != GOAL and len(walk) < MAX_LETTERS:
        walk.append(rng.choice(graph.successors[walk[-1]]))
    return walk


def _two_walks(graph: Graph, start: int, rng: Random) -> tuple[list[int], list[int]]:
    while True:
        first, second = random_walk(graph, start, rng), random_walk(graph, start, rng)
        if first != second:
            return first, second


def _has_two_walks(graph: Graph, start: int) -> bool:
    """Whether there is anything to choose on the way. (The goal leads to itself alone.)"""
    node = start
    for _ in range(MAX_LETTERS - 1):
        if len(graph.successors[node]) > 1:
            return True
        node = graph.successors[node][0]
    return False


def _worth(graph: Graph, walk: list[int]) -> float:
    return graph.optimality_of_length(walk[0], len(walk)) if walk[-1] == GOAL else 0.0


def _mark_pairs(split: str) -> list[str]:
    """A Latin square of the marks: one diagonal for validation, one for test, the others for training."""
    diagonals = {"validation": (0,), "test": (1,), "train": (2, 3, 4)}[split]
    places = product(enumerate(_MARKS), repeat=2)
    return [f"{one} {other}" for (i, one), (j, other) in places if (i + j) % len(_MARKS) in diagonals]


def _prompt(marks: str, start: int) -> str:
    return f"{marks} {letter_of(start)}"


def _response(walk: list[int]) -> str:
    """The letters after the start, each between spaces so that a tokenizer can give it a token of its own."""
    return " ".join(map(letter_of, walk[1:]))
