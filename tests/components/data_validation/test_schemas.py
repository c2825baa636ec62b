from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import DataValidation
from components.data_validation.schemas import (
    FILES,
    FileName,
    MissingColumns,
    frame_of,
    row_faults,
    schema_of,
)

Limits = Callable[..., DataValidation]


def faults(file: FileName, rows: list[dict[str, Any]], limits: DataValidation) -> dict[int, list[str]]:
    found = row_faults(frame_of(rows), schema_of(file, limits))
    return {position: [str(fault) for fault in listed] for position, listed in found.items()}


def comparison(i: int, **changes: Any) -> dict[str, Any]:
    sound = {
        "id": f"c{i}",
        "prompt": f"prompt {i}",
        "chosen": f"good {i}",
        "rejected": f"bad {i}",
        "source": "people",
    }
    return sound | changes


def test_sound_rows_have_no_fault(limits: Limits) -> None:
    assert faults("comparisons", [comparison(1), comparison(2)], limits()) == {}


def test_all_faults_of_all_rows_are_found_at_once(limits: Limits) -> None:
    rows = [
        comparison(0, prompt=" \n"),
        comparison(1),
        comparison(2, chosen="x" * 201, source=7),
        comparison(3, chosen="same", rejected="same"),
        comparison(1),
        comparison(5, rejected="caf\ufffd", id="c2"),
        comparison(6, prompt=None),
        comparison(1, id="c7"),
    ]
    assert faults("comparisons", rows, limits()) == {
        0: ["prompt is empty"],
        2: ["chosen is too long (over 200 characters)", "source is not text"],
        3: ["chosen equals rejected"],
        4: ["the row repeats an earlier one", "id occurs in an earlier row"],
        5: ["id occurs in an earlier row", "rejected has an encoding fault"],
        6: ["prompt has no value"],
        7: ["the row repeats an earlier one"],
    }


def test_a_text_may_be_as_long_as_its_limit(limits: Limits) -> None:
    rows = [comparison(0, prompt="p" * 100, chosen="c" * 200), comparison(1, prompt="p" * 101)]
    assert faults("comparisons", rows, limits()) == {1: ["prompt is too long (over 100 characters)"]}


def test_a_prompt_names_a_known_split_or_the_file_names_none(limits: Limits) -> None:
    rows = [
        {"id": "1", "prompt": "a", "split": "train"},
        {"id": "2", "prompt": "b", "split": "dev"},
        {"id": "3", "prompt": "c"},
    ]
    assert faults("prompts", rows, limits()) == {
        1: ["split is none of train, validation, test"],
        2: ["split has no value"],
    }
    without = [{"id": row["id"], "prompt": row["prompt"]} for row in rows]
    assert faults("prompts", without, limits()) == {}


def test_optional_columns_may_be_null_but_not_empty(limits: Limits) -> None:
    rows = [comparison(0, annotator=None), comparison(1, annotator="ada"), comparison(2, annotator="")]
    assert faults("comparisons", rows, limits()) == {2: ["annotator is empty"]}


def test_columns_the_schema_does_not_name_are_free(limits: Limits) -> None:
    rows = [comparison(0, extra={"deep": [1, None]}), comparison(1, extra=3.5)]
    assert faults("comparisons", rows, limits()) == {}


def test_missing_columns_are_all_named(limits: Limits) -> None:
    with pytest.raises(MissingColumns) as missing:
        faults("demonstrations", [{"id": "1", "source": "s"}], limits())
    assert missing.value.columns == ["prompt", "response"]


def test_labels_of_a_pair_have_the_same_responses_in_either_order(limits: Limits) -> None:
    responses = {"prompt": "p", "chosen": "one", "rejected": "two", "pair": "q"}
    rows = [
        comparison(0, **responses),
        comparison(1, **responses | {"chosen": "two", "rejected": "one"}),
        comparison(2, **responses | {"chosen": "three"}),
        comparison(3, pair="another"),
        comparison(4, pair=None),
    ]
    assert faults("comparisons", rows, limits()) == {2: ["prompt or responses differ from the other rows of the pair"]}


def test_a_broken_row_does_not_blame_the_sound_rows_of_its_pair(limits: Limits) -> None:
    responses = {"prompt": "p", "chosen": "one", "rejected": "two", "pair": "q"}
    rows = [comparison(0, **responses | {"rejected": "one"}), comparison(1, **responses)]
    assert faults("comparisons", rows, limits()) == {0: ["chosen equals rejected"]}


def test_equal_labels_by_unnamed_annotators_are_not_repeats(limits: Limits) -> None:
    labels = {"prompt": "p", "chosen": "one", "rejected": "two"}
    unnamed = [comparison(0, **labels, pair="q"), comparison(1, **labels, pair="q")]
    assert faults("comparisons", unnamed, limits()) == {}
    named = [row | {"annotator": "ada"} for row in unnamed]
    assert faults("comparisons", named, limits()) == {1: ["the row repeats an earlier one"]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
columns = st.sampled_from(
    ["id", "prompt", "response", "chosen", "rejected", "source", "split", "kind", "pair", "annotator", "more"]
)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.dictionaries(columns, json_values, max_size=8), min_size=1, max_size=4),
    file=st.sampled_from(FILES),
)
def test_no_json_row_breaks_the_checks(limits: Limits, rows: list[dict[str, Any]], file: FileName) -> None:
    required = {"prompts": ["id", "prompt"], "demonstrations": ["id", "prompt", "response", "source"]}.get(
        file, ["id", "prompt", "chosen", "rejected", "source"]
    )
    rows[0] = dict.fromkeys(required) | rows[0]  # else nearly every example only lacks a column
    found = faults(file, rows, limits())
    for position, row in enumerate(rows):
        fit = all(isinstance(row.get(column), str) for column in required)
        assert fit or position in found


@pytest.mark.parametrize("invisible", ["\u200b", " \u200d\ufeff", "\u3164"])
@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_a_text_of_which_nothing_is_seen_is_empty(limits: Limits, column: str, invisible: str) -> None:
    assert faults("comparisons", [comparison(0, **{column: invisible}), comparison(1)], limits()) == {
        0: [f"{column} is empty"]
    }


@pytest.mark.parametrize("twin", ["caf\u00e9 ", "\ncaf\u00e9", "cafe\u0301", "caf\u200b\u00e9"])
def test_responses_that_look_equal_are_named(limits: Limits, twin: str) -> None:
    assert faults("comparisons", [comparison(0, chosen="caf\u00e9", rejected=twin), comparison(1)], limits()) == {
        0: ["chosen and rejected differ only in what cannot be seen"]
    }


@pytest.mark.parametrize("file", FILES)
def test_a_row_that_looks_like_an_earlier_one_repeats_it(limits: Limits, file: FileName) -> None:
    texts = {"prompts": ("prompt",), "demonstrations": ("prompt", "response")}.get(file, ("prompt", "chosen"))
    row = {column: comparison(0)[column] for column in ("id", "prompt", "chosen", "rejected", "source")}
    row = row | {"response": "say"}
    for text in texts:
        twin = row | {"id": "twin", text: f" {row[text]}\u200b "}
        assert faults(file, [row, twin], limits()) == {1: ["the row repeats an earlier one"]}


def test_rows_of_a_pair_may_differ_in_what_cannot_be_seen(limits: Limits) -> None:
    responses = {"prompt": "p", "chosen": "one", "rejected": "two", "pair": "q"}
    rows = [
        comparison(0, **responses, annotator="ada"),
        comparison(1, **responses | {"chosen": "one\u200b", "prompt": "p "}, annotator="bob"),
    ]
    assert faults("comparisons", rows, limits()) == {}


def test_a_label_of_a_pair_without_a_name_repeats_nothing_where_others_have_names(limits: Limits) -> None:
    labels = {"prompt": "p", "chosen": "one", "rejected": "two", "pair": "q"}
    rows = [comparison(i, **labels, annotator=annotator) for i, annotator in enumerate(["ada", None, None, "ada"])]
    assert faults("comparisons", rows, limits()) == {3: ["the row repeats an earlier one"]}
