"""Checks of the parts of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.checks import Check
from components.data_validation.validate import validate
from components.errors import DataError

Limits = Callable[..., DataValidation]


def check(world: Any, limits: DataValidation, name: str) -> Check:
    return next(check for check in validate(world.raw(), limits, 1).checks if check.name == name)


def test_a_prompt_in_two_splits_fails(world: Any, limits: Limits) -> None:
    world.prompts[30]["prompt"] = world.prompts[25]["prompt"].upper()
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(), 1)
    assert error.value.expected == "every prompt is in one split"
    assert "1 prompts in two or more (row 26 (validation) and row 31 (test): ask25 about25" in error.value.found


@pytest.mark.parametrize("file", ["demonstrations", "comparisons"])
def test_training_rows_with_held_out_prompts_are_leaks(world: Any, limits: Limits, file: str) -> None:
    world.rows(file)[2]["prompt"] = world.prompts[35]["prompt"].upper() + " "
    if file == "comparisons":
        world.comparisons[2]["pair"] = "of its own"
    validated = validate(world.raw(), limits(), 1)
    assert [(row.file, row.row, [str(fault) for fault in row.faults]) for row in validated.rejected] == [
        (file, 3, ["prompt is a validation or test prompt"])
    ]
    leaks = next(check for check in validated.checks if check.name == "leaked_prompts")
    assert (leaks.status, leaks.value) == ("warning", 1)
    kept = {row["prompt"] for row in validated.kept[file]}  # type: ignore[index]
    assert world.rows(file)[2]["prompt"] not in kept


def test_an_empty_split_fails(world: Any, limits: Limits) -> None:
    world.prompts = [row for row in world.prompts if row["split"] != "test"]
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(), 1)
    assert error.value.found == "no row in prompts_test"


def test_all_failures_are_told_at_once(world: Any, limits: Limits) -> None:
    world.prompts = world.prompts[:30]
    world.prompts[29]["prompt"] = world.prompts[0]["prompt"]
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(max_reject_fraction=1.0), 1)
    assert error.value.what == "the raw data fails 2 checks"
    assert "no row in prompts_test" in error.value.found
    assert "row 1 (train) and row 30 (validation)" in error.value.found


def test_a_prompt_that_looks_like_a_held_out_one_is_a_leak(world: Any, limits: Limits) -> None:
    world.demonstrations[2]["prompt"] = "\u200b" + world.prompts[35]["prompt"]
    found = check(world, limits(), "leaked_prompts")
    assert (found.status, found.value) == ("warning", 1)


@pytest.mark.parametrize("least", [10, 11])
def test_a_split_with_too_few_prompts_for_an_interval_fails(world: Any, limits: Limits, least: int) -> None:
    asked = limits(min_heldout_prompts=least)
    if least == 10:
        assert check(world, asked, "few_heldout_prompts").status == "ok"
        return
    with pytest.raises(DataError) as error:
        validate(world.raw(), asked, 1)
    assert "at least 11 validation and 11 test prompts (data_validation.min_heldout_prompts)" in error.value.expected
    assert error.value.found == "10 validation prompts and 10 test prompts"
    assert "the rows of that split" in error.value.do and "min_heldout_prompts" in error.value.do


def test_copies_of_a_prompt_do_not_make_a_split_larger(world: Any, limits: Limits) -> None:
    for row in world.prompts[30:35]:
        row["prompt"] = world.prompts[30]["prompt"]
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(min_heldout_prompts=7, max_reject_fraction=1.0), 1)
    assert error.value.found == "6 test prompts"


def test_too_few_drawn_prompts_name_the_fraction(world: Any, limits: Limits) -> None:
    world.drop("prompts", "split")
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(min_heldout_prompts=20, validation_fraction=0.6, test_fraction=0.1), 1)
    assert "test prompts" in error.value.found and "validation" not in error.value.found
    assert "raise data_validation.test_fraction" in error.value.do


def test_held_out_comparisons_of_few_prompts_are_warned_of(world: Any, limits: Limits) -> None:
    prompts = {row["prompt"] for row in validate(world.raw(), limits(), 1).parts["comparisons_judge_heldout"]}
    assert check(world, limits(), "few_heldout_comparisons").status == "ok"
    found = check(world, limits(min_heldout_prompts=10), "few_heldout_comparisons")
    assert found.status == "warning" and f"judge: {len(prompts)} prompts" in found.found
