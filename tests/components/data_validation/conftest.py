"""A small world of raw data, sound from end to end, that each test breaks in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.reading import RawFile, parse_lines
from components.data_validation.schemas import FILES, FileName

Row = dict[str, Any]

LIMITS: dict[str, Any] = {
    "max_reject_fraction": 0.2,
    "max_prompt_characters": 100,
    "max_response_characters": 200,
    "max_prompt_tokens": None,
    "max_response_tokens": None,
    "near_duplicate_similarity": 0.9,
    "max_near_duplicate_fraction": 0.05,
    "min_annotator_agreement": 0.6,
    "max_longer_wins": 0.7,
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "judge_fraction": 0.5,
    "heldout_fraction": 0.3,
    "heldout_pair_fraction": 0.2,
    "min_heldout_prompts": 2,
}


@dataclass
class World:
    """Raw rows: 40 prompts (20 train, 10 validation, 10 test), 20 demonstrations, 40 comparisons."""

    prompts: list[Row] = field(default_factory=list)
    demonstrations: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)

    def rows(self, file: FileName) -> list[Row]:
        rows: list[Row] = getattr(self, file)
        return rows

    def drop(self, file: FileName, column: str) -> None:
        for row in self.rows(file):
            del row[column]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            (folder / f"{file}.jsonl").write_text(_lines(self.rows(file)), encoding="utf-8")

    def raw(self) -> dict[FileName, RawFile]:
        return {file: parse_lines(_lines(self.rows(file)).encode(), f"data/{file}.jsonl") for file in FILES}


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def text_of(i: int) -> str:
    """Words that no other number's text has, so that nothing is a near duplicate by accident."""
    return f"ask{i} about{i} thing{i} and{i} more{i}"


@pytest.fixture
def world() -> World:
    splits = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    world = World()
    world.prompts = [
        {"id": f"p{i}", "prompt": text_of(i), "split": split, "kind": "known" if i % 4 else "unknown"}
        for i, split in enumerate(splits)
    ]
    world.demonstrations = [
        {"id": f"d{i}", "prompt": text_of(i), "response": f"say{i} this{i} now{i}", "source": "expert"}
        for i in range(20)
    ]
    world.comparisons = [
        {
            "id": f"c{i}-{annotator}",
            "prompt": text_of(i),
            "chosen": f"good{i} answer{i} here{i}" + (" at length" if i % 2 else ""),
            "rejected": f"bad{i} answer{i} there{i}" + ("" if i % 2 else " at length"),
            "source": "sampled",
            "annotator": annotator,
            "pair": f"q{i}",
        }
        for i in range(20)
        for annotator in ("ada", "bob")
    ]
    return world


@pytest.fixture(scope="session")
def limits() -> Callable[..., DataValidation]:
    return lambda **changes: DataValidation(**(LIMITS | changes))
