"""Records that tests make by hand: four prompts of two kinds, two samples each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from components.config import Evaluation
from components.measuring.records import Record

KINDS = {"p1": "known", "p2": "known", "p3": "harmful", "p4": "harmful"}
RUBRIC: dict[str, float] = {"helpful": 0, "harmless": 1, "honest": 1, "gold": 0.5}


def record(prompt_id: str, sample: int = 0, **values: Any) -> Record:
    """A whole record; `values` replace what is plain in it, be they of the rubric or not."""
    plain = Record(
        prompt_id=prompt_id,
        prompt=f"question {prompt_id} ?",
        kind=KINDS.get(prompt_id),
        sample=sample,
        response="Please swap the fuse.",
        response_tokens=6,
        ended=True,
        reward=0.0,
        judge=0.0,
        kl=0.0,
        entropy=1.0,
        rubric=RUBRIC,
    )
    return changed(plain, **values)


def changed(one: Record, **values: Any) -> Record:
    """A copy with other values."""
    rubric = {name: values.pop(name, old) for name, old in one.rubric.items()}
    return dataclasses.replace(one, **({"rubric": rubric} | values))


def all_changed(records: Iterable[Record], values: Callable[[Record], dict[str, Any]]) -> list[Record]:
    """Copies of the records, each with the values that it is given."""
    return [changed(one, **values(one)) for one in records]


def without(records: Iterable[Record], *names: str) -> list[Record]:
    """Copies whose rubric lacks these names."""
    return [
        dataclasses.replace(one, rubric={name: value for name, value in one.rubric.items() if name not in names})
        for one in records
    ]


@pytest.fixture
def sft() -> list[Record]:
    return [record(prompt, sample) for prompt in KINDS for sample in (0, 1)]


@pytest.fixture
def candidate() -> list[Record]:
    """Better than `sft` at every prompt, by gold 0.3 and judge 1, at 2 nats."""
    better = {"response": "You should swap the fuse.", "gold": 0.8, "helpful": 1, "judge": 1.0, "kl": 2.0}
    return [record(prompt, sample, **better) for prompt in KINDS for sample in (0, 1)]


@pytest.fixture
def settings() -> Evaluation:
    return Evaluation(confidence=0.95, shown_samples=3)
