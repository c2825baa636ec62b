from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.reading import parse_lines
from components.data_validation.splits import MAY_BE_EMPTY, PARTS
from components.data_validation.validate import validate
from components.errors import DataError

Limits = Callable[..., DataValidation]


def test_every_sound_row_is_in_one_part_with_its_columns_and_line(world: Any, limits: Limits) -> None:
    world.demonstrations[3]["note"] = {"free": [1]}
    validated = validate(world.raw(), limits(), 1)
    assert list(validated.parts) == list(PARTS)
    for file in ("prompts", "demonstrations", "comparisons"):
        rows = [row for part, rows in validated.parts.items() if part.startswith(file) for row in rows]
        assert sorted(rows, key=lambda row: row["raw_row"]) == [
            row | {"raw_row": number} for number, row in enumerate(world.rows(file), start=1)
        ]
    assert [row["split"] for row in validated.parts["prompts_validation"]] == ["validation"] * 10


def test_the_parts_of_the_comparisons_share_nothing_they_must_not(world: Any, limits: Limits) -> None:
    parts = validate(world.raw(), limits(), 1).parts
    pairs = {part: {row["pair"] for row in parts[part]} for part in PARTS if part.startswith("comparisons")}
    for one in pairs:
        for other in pairs:
            assert one == other or not pairs[one] & pairs[other]
    prompts = {part: {row["prompt"] for row in parts[part]} for part in pairs}
    training = prompts["comparisons_reward_model"] | prompts["comparisons_judge"]
    heldout = prompts["comparisons_reward_model_heldout"] | prompts["comparisons_judge_heldout"]
    assert not training & heldout


def test_added_rows_move_no_other(world: Any, limits: Limits) -> None:
    before = validate(world.raw(), limits(), 1).parts
    world.comparisons.insert(0, world.comparisons[0] | {"id": "new", "prompt": "a new prompt", "pair": "new"})
    after = validate(world.raw(), limits(), 1).parts
    for part in PARTS:
        if part.startswith("comparisons"):
            assert {row["id"] for row in before[part]} == {row["id"] for row in after[part]} - {"new"}


def test_plain_data_is_enough(world: Any, limits: Limits) -> None:
    """Only {id, prompt}, {id, prompt, response, source} and {id, prompt, chosen, rejected, source}."""
    world.comparisons = world.comparisons[::2]
    for column in ("annotator", "pair"):
        world.drop("comparisons", column)
    for column in ("split", "kind"):
        world.drop("prompts", column)
    validated = validate(world.raw(), limits(), 3)
    sizes = {part: len(rows) for part, rows in validated.parts.items()}
    assert sizes["prompts_train"] + sizes["prompts_validation"] + sizes["prompts_test"] == 40
    assert [part for part, size in sizes.items() if not size] == list(MAY_BE_EMPTY)  # no prompt has two pairs
    absent = {check.name for check in validated.checks if check.status == "not in the data"}
    assert absent == {"annotator_agreement", "annotator_against_majority", "kinds"}

    heldout = {row["prompt"] for part in ("validation", "test") for row in validated.parts[f"prompts_{part}"]}
    withheld = {(row.file, row.row) for row in validated.rejected}
    assert withheld == {
        (file, number)
        for file in ("demonstrations", "comparisons")
        for number, row in enumerate(world.rows(file), start=1)
        if row["prompt"] in heldout
    }
    assert withheld  # such rows are sound, so they count neither as leaks nor as rejected
    assert all(row.withheld for row in validated.rejected)
    assert {check.name: check.value for check in validated.checks}["leaked_prompts"] == 0
    assert len(withheld) / 60 > limits().max_reject_fraction


def test_labels_without_annotators_still_agree_or_not(world: Any, limits: Limits) -> None:
    world.drop("comparisons", "annotator")
    checks = {check.name: check for check in validate(world.raw(), limits(), 1).checks}
    assert checks["annotator_agreement"].value == 1.0
    assert checks["contradicting_labels"].status == "not in the data"
    assert checks["annotator_against_majority"].status == "not in the data"


def test_too_many_rejected_rows_stop_the_stage(world: Any, limits: Limits) -> None:
    for row in world.comparisons[:7]:
        row["chosen"] = ""
    world.comparisons[9]["source"] = None
    world.demonstrations[0]["response"] = 1
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(max_reject_fraction=0.1), 1)
    assert error.value.where == "data/comparisons.jsonl"
    assert error.value.expected == "at most 0.1 of the rows of a file (data_validation.max_reject_fraction)"
    assert error.value.found == (
        'comparisons.jsonl: 8 of 40 rows (0.2): 7 times "chosen is empty" (rows 1, 2, 3, 4, 5, ...), '
        '1 times "source has no value" (row 10)'
    )


def test_the_limit_itself_is_allowed(world: Any, limits: Limits) -> None:
    for row in world.comparisons[:4]:
        row["chosen"] = ""
    validated = validate(world.raw(), limits(max_reject_fraction=0.1), 1)
    assert [row.row for row in validated.rejected] == [1, 2, 3, 4]


def test_lines_that_do_not_parse_are_quarantined_beside_other_faults(world: Any, limits: Limits) -> None:
    raw = world.raw()
    good = b'{"id": "x", "prompt": "ask0 about0", "response": "r", "source": "s"}\n'
    bad = b'{"id": "x", "prompt": \n' + good.replace(b'"r"', b'""')
    raw["demonstrations"] = parse_lines(good + bad, "data/demonstrations.jsonl")
    validated = validate(raw, limits(max_reject_fraction=0.7), 1)
    assert [(row.row, [str(fault) for fault in row.faults], row.content) for row in validated.rejected] == [
        (2, ["the line is not JSON"], '{"id": "x", "prompt": '),
        (
            3,
            ["id occurs in an earlier row", "response is empty"],
            {"id": "x", "prompt": "ask0 about0", "response": "", "source": "s"},
        ),
    ]


def test_all_missing_columns_and_empty_files_are_named_at_once(world: Any, limits: Limits) -> None:
    world.drop("comparisons", "chosen")
    world.drop("demonstrations", "response")
    world.drop("demonstrations", "source")
    world.prompts = []
    with pytest.raises(DataError) as error:
        validate(world.raw(), limits(), 1)
    assert error.value.where == (
        "data/prompts.jsonl; data/demonstrations.jsonl, column response; "
        "data/demonstrations.jsonl, column source; data/comparisons.jsonl, column chosen"
    )
    assert "an empty file" in error.value.found
    assert "columns ['id', 'prompt']" in error.value.found


def test_a_file_without_any_row_names_its_first_line(world: Any, limits: Limits) -> None:
    raw = world.raw()
    raw["prompts"] = parse_lines(b"\nid,prompt\n1,hello\n", "data/prompts.jsonl")
    with pytest.raises(DataError) as error:
        validate(raw, limits(), 1)
    assert error.value.where == "data/prompts.jsonl"
    assert error.value.found == "2 lines, none of them a row; line 2: the line is not JSON"


def test_the_same_data_under_another_path_gives_the_same_parts(world: Any, limits: Limits) -> None:
    raw = world.raw()
    moved = {file: replace(content, path=f"elsewhere/{file}.jsonl") for file, content in raw.items()}
    assert validate(raw, limits(), 1) == validate(moved, limits(), 1)
