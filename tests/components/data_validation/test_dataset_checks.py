"""Each dataset-level check: data that triggers it and data that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.checks import Check
from components.data_validation.validate import validate

Limits = Callable[..., DataValidation]


def check(world: Any, limits: DataValidation, name: str) -> Check:
    return next(check for check in validate(world.raw(), limits, 1).checks if check.name == name)


def test_the_sound_world_passes_every_check(world: Any, limits: Limits) -> None:
    validated = validate(world.raw(), limits(), 1)
    assert {check.name: check.status for check in validated.checks if check.status != "ok"} == {}
    assert validated.rejected == []


def test_exact_duplicates(world: Any, limits: Limits) -> None:
    world.demonstrations.append(world.demonstrations[0] | {"id": "again"})
    found = check(world, limits(), "exact_duplicates")
    assert (found.status, found.value) == ("warning", 1)
    assert found.examples == ["demonstrations.jsonl row 21: the row repeats an earlier one"]


@pytest.mark.parametrize("file", ["prompts", "demonstrations", "comparisons"])
def test_near_duplicates(world: Any, limits: Limits, file: str) -> None:
    text = " ".join(f"word{i}" for i in range(12))
    for more in ("", "again "):  # 10 of 11 shingles; 11 of 12 and more with the responses behind
        prompt = more + text
        world.prompts.append({"id": f"p{more}", "prompt": prompt, "split": "train", "kind": "known"})
        world.demonstrations.append({"id": f"d{more}", "prompt": prompt, "response": "fine", "source": "s"})
        responses = {"chosen": "y", "rejected": "n", "pair": f"q{more}"}
        world.comparisons.append(world.comparisons[0] | responses | {"id": f"c{more}", "prompt": prompt})
    found = check(world, limits(max_near_duplicate_fraction=0.01), f"near_duplicates_{file}")
    assert found.status == "warning"
    rows = {"prompts": (42, 41, 42), "demonstrations": (22, 21, 22), "comparisons": (42, 41, 22)}
    later, earlier, distinct = rows[file]  # 40 comparisons are 20 response pairs with two labels each
    assert found.value == pytest.approx(1 / distinct)
    assert found.examples[0].startswith(f"{file}.jsonl row {later} repeats {file}.jsonl row {earlier}: again word0")
    assert check(world, limits(max_near_duplicate_fraction=0.05), f"near_duplicates_{file}").status == "ok"


def test_several_labels_of_a_pair_are_no_near_duplicates(world: Any, limits: Limits) -> None:
    found = check(world, limits(), "near_duplicates_comparisons")
    assert (found.value, found.found) == (0.0, "0 of 20")


def test_near_duplicates_across_splits(world: Any, limits: Limits) -> None:
    text = " ".join(f"word{i}" for i in range(12))
    world.demonstrations[0]["prompt"] = text
    world.prompts[25]["prompt"] = text + " thirteen"
    found = check(world, limits(max_near_duplicate_fraction=0.04), "near_duplicates_across_splits")
    assert (found.status, found.value) == ("warning", 1 / 20)
    assert check(world, limits(), "near_duplicates_across_splits").status == "ok"


def test_contradicting_labels_of_one_annotator(world: Any, limits: Limits) -> None:
    row = world.comparisons[0]
    world.comparisons.append(row | {"id": "turned", "chosen": row["rejected"], "rejected": row["chosen"], "pair": None})
    found = check(world, limits(), "contradicting_labels")
    assert (found.status, found.value) == ("warning", 1)
    assert found.examples == ["comparisons.jsonl rows 1, 41"]


def test_annotators_may_contradict_each_other(world: Any, limits: Limits) -> None:
    row = world.comparisons[0]
    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    found = check(world, limits(), "contradicting_labels")
    assert (found.status, found.value) == ("ok", 0)
    assert "1 of 20 response pairs" in found.found
    agreement = check(world, limits(), "annotator_agreement")
    assert (agreement.status, agreement.value) == ("ok", pytest.approx(19 / 20))


def test_contradictions_without_pairs_and_annotators_are_warned_of(world: Any, limits: Limits) -> None:
    world.comparisons = world.comparisons[::2]
    world.drop("comparisons", "annotator")
    world.drop("comparisons", "pair")
    assert check(world, limits(), "contradicting_labels").status == "ok"
    row = world.comparisons[0]
    world.comparisons.append(row | {"id": "turned", "chosen": row["rejected"], "rejected": row["chosen"]})
    assert check(world, limits(), "contradicting_labels").status == "warning"


def test_low_annotator_agreement(world: Any, limits: Limits) -> None:
    for row in world.comparisons[1:20:2]:  # bob's first ten labels
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    found = check(world, limits(), "annotator_agreement")
    assert (found.status, found.value) == ("warning", 0.5)
    assert check(world, limits(min_annotator_agreement=0.5), "annotator_agreement").status == "ok"


def test_an_annotator_against_the_majority(world: Any, limits: Limits) -> None:
    for row in world.comparisons[::2]:
        world.comparisons.append(row | {"id": row["id"] + "c", "annotator": "cyd"})
    for row in world.comparisons[1:40:2]:  # bob turns all his 20 labels
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    found = check(world, limits(), "annotator_against_majority")
    assert (found.status, found.value) == ("warning", 0.0)
    assert found.examples == ["bob: 0.0%"]


@pytest.mark.parametrize(("longer", "status"), [(20, "warning"), (12, "ok"), (0, "warning")])
def test_length_bias(world: Any, limits: Limits, longer: int, status: str) -> None:
    world.comparisons = world.comparisons[::2]
    for i, row in enumerate(world.comparisons):
        row["chosen"] = f"good{i}" + (" and more" if i < longer else "")
        row["rejected"] = f"bad{i} either"
    found = check(world, limits(), "length_bias")
    assert (found.status, found.value) == (status, pytest.approx(longer / 20))


def test_length_bias_leaves_out_equal_lengths(world: Any, limits: Limits) -> None:
    for row in world.comparisons:
        row["chosen"] = row["chosen"].replace(" at length", "")
        row["rejected"] = row["rejected"].replace(" at length", "")
    assert check(world, limits(), "length_bias").status == "not in the data"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoding_faults", {"response": "caf\u00c3\u00a9"}),
        ("empty_or_overlong_text", {"response": "  "}),
        ("empty_or_overlong_text", {"response": "x" * 201}),
        ("schema", {"response": 3}),
        ("schema", {"id": "d0"}),
    ],
)
def test_faults_of_rows_are_counted_by_kind(world: Any, limits: Limits, name: str, change: dict[str, Any]) -> None:
    world.demonstrations[4] |= change
    validated = validate(world.raw(), limits(), 1)
    assert {check.name: check.value for check in validated.checks if check.status == "warning"} == {name: 1}
    assert [row.row for row in validated.rejected] == [5]


def test_chosen_equal_to_rejected(world: Any, limits: Limits) -> None:
    world.comparisons[4]["chosen"] = world.comparisons[4]["rejected"]
    found = check(world, limits(), "chosen_equals_rejected")
    assert (found.status, found.value, found.examples) == (
        "warning",
        1,
        ["comparisons.jsonl row 5: chosen equals rejected"],
    )


def test_kinds_and_label_counts_are_told(world: Any, limits: Limits) -> None:
    assert check(world, limits(), "kinds").found == "known 75.0%, unknown 25.0%"
    counts = check(world, limits(), "label_counts")
    assert counts.found == "40 labels of 20 response pairs: 20 with 2; 2 named annotators"
    assert counts.value == 2.0


def test_responses_that_look_equal(world: Any, limits: Limits) -> None:
    world.comparisons[4]["chosen"] = world.comparisons[4]["rejected"] + " "
    found = check(world, limits(), "responses_look_equal")
    assert (found.status, found.value, found.examples) == (
        "warning",
        1,
        ["comparisons.jsonl row 5: chosen and rejected differ only in what cannot be seen"],
    )


def test_agreement_of_labels_without_pair_and_annotator_is_unknown(world: Any, limits: Limits) -> None:
    """Equal labels are quarantined as duplicates there: to compare the rest would find contradictions alone."""
    world.drop("comparisons", "annotator")
    world.drop("comparisons", "pair")
    row = world.comparisons[0]
    world.comparisons.append(row | {"id": "turned", "chosen": row["rejected"], "rejected": row["chosen"]})
    roomy = limits(max_reject_fraction=0.6)
    assert check(world, roomy, "annotator_agreement").status == "not in the data"
    assert check(world, roomy, "contradicting_labels").status == "warning"
