"""Data of one kind: demonstrations are made of chosen responses; comparisons may be none where none are needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.chosen import demonstrations_of
from components.data_validation.comparison_keys import keys
from components.data_validation.page import page_of
from components.data_validation.report import flat_metrics, price_of_the_split, report_of
from components.data_validation.validate import Validated, validate

Limits = Callable[..., DataValidation]


def without(world: Any, limits: DataValidation, *roles: str) -> tuple[Any, Validated, dict[str, Any]]:
    raw = {file: content for file, content in world.raw().items() if file not in roles}
    found = validate(raw, limits, 1)
    return raw, found, report_of(raw, found)


def test_demonstrations_are_what_trains_the_reward_model(world: Any, limits: Limits) -> None:
    raw, found, report = without(world, limits(), "demonstrations")
    trained = found.parts["comparisons_reward_model"]
    made = found.parts["demonstrations"]
    assert 0 < len(made) < len(trained)  # two annotators chose each response
    assert {(row["prompt"], row["response"]) for row in made} == {(row["prompt"], row["chosen"]) for row in trained}
    assert {row["source"] for row in made} == {"chosen"}
    first = next(row for row in trained if row["id"] == made[0]["id"].removesuffix("/chosen"))
    assert made[0] == {
        "id": f"{first['id']}/chosen",
        "prompt": first["prompt"],
        "response": first["chosen"],
        "source": "chosen",
        "raw_row": first["raw_row"],
        "raw_file": "comparisons.jsonl",
    }
    assert report["demonstrations"]["kept"] == report["demonstrations"]["rows"] == len(made)
    assert "the chosen responses" in page_of(raw, found, report)


def test_a_response_that_is_chosen_twice_is_one_demonstration() -> None:
    row = {"id": "a", "prompt": "Why?", "chosen": "So.", "rejected": "No.", "raw_row": 1}
    conversation = [{"role": "user", "content": "Why?"}]
    rows = [row, row | {"id": "b", "chosen": " So. ", "rejected": "Never."}, row | {"id": "c", "chosen": "Thus."}]
    assert [made["id"] for made in demonstrations_of(rows, keys(1))] == ["a/chosen", "c/chosen"]
    (made,) = demonstrations_of([row | {"messages": conversation}], keys(1))
    assert made["messages"] == conversation


def test_without_comparisons_their_parts_are_empty_and_the_checks_say_so(world: Any, limits: Limits) -> None:
    raw, found, report = without(world, limits(), "comparisons")
    assert {part: len(rows) for part, rows in found.parts.items()} == {
        "prompts_train": 20,
        "prompts_validation": 10,
        "prompts_test": 10,
        "demonstrations": 20,
        **{part: 0 for part in found.parts if part.startswith("comparisons_")},
    }
    said = {check.name: check.found for check in found.checks if check.status == "not in the data"}
    for name in ("few_heldout_comparisons", "contradicting_labels", "length_bias"):
        assert said[name] == "no comparisons"
    assert flat_metrics(report)["comparisons/kept"] == 0
    assert len(price_of_the_split(report)) == 2
    page = page_of(raw, found, report)
    assert 'id="examples"' not in page and "comparisons: chosen" not in page
    json.dumps(report, allow_nan=False)


def test_prompts_alone_are_enough(world: Any, limits: Limits, tmp_path: Path) -> None:
    raw, found, report = without(world, limits(), "comparisons", "demonstrations")
    assert found.parts["demonstrations"] == []
    assert page_of(raw, found, report)


@pytest.mark.parametrize("missing", ["demonstrations", "comparisons"])
def test_a_file_that_is_there_and_has_no_sound_row_left_is_another_matter(
    world: Any, limits: Limits, missing: str
) -> None:
    """An empty file is a mistake; one that is not there is a choice."""
    from components.errors import DataError

    world.rows(missing).clear()
    with pytest.raises(DataError, match="lacks what every file must have"):
        validate(world.raw(), limits(), 1)
