"""Annotators that a world simulates: a function that the params name judges the pairs of a queue, as people would."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from components.artifacts import write_jsonl
from components.config import Params
from components.errors import ConfigError
from components.interface.label.labels import label_of
from components.interface.label.pairs import Queue
from components.seeding import derive_seed

KEY = "orchestration.simulated_annotators"
# From the prompt, two answers as they are shown and the number of its random draws: who judged, and whether the first
# answer is the better one.
Annotators = Callable[[str, str, str, int], tuple[str, bool]]


def load_annotators(params: Params) -> Annotators:
    """The function that the params name.

    Raises:
        ConfigError: they name none, or it cannot be imported or called so.
    """
    named = params.orchestration.simulated_annotators
    if named is None:
        raise ConfigError(
            "no simulated annotators are named",
            where=KEY,
            expected="module:function",
            found="null",
            do="let people label (--annotators people), or name a function of (prompt, first, second, seed) there",
        )
    module_name, _, function_name = named.partition(":")
    try:
        function: Annotators = getattr(importlib.import_module(module_name), function_name)
        inspect.signature(function).bind("prompt", "first", "second", 0)
    except (ImportError, SyntaxError, AttributeError, TypeError) as fault:
        raise ConfigError(
            "the simulated annotators cannot be used",
            where=f"{KEY}: {named}",
            expected="module:function, a function of (prompt, first, second, seed)",
            found=str(fault),
            do="name one that can be imported from the root of the repository",
        ) from fault
    return function


def judge_all(queue: Queue, annotators: Annotators, seed: int, out: Path) -> int:
    """Write a label for each pair of a queue, as `proximal label` would, whole or not at all; returns how many.

    Who judges and what he picks follow from the pair and the seed: the same queue is judged alike each time. There is
    no time in a label: none passed.
    """
    rows = []
    for pair in queue.pairs:
        first, second = pair.answers
        who, is_better = annotators(pair.prompt, first.text, second.text, derive_seed(seed, "annotators", pair.id))
        better = first if is_better else second
        rows.append(label_of(pair, who, "A" if pair.shown_to(who)[0] == better else "B"))
    write_jsonl(out, rows)
    return len(rows)
