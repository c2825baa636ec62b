"""Label Studio's and Argilla's pairs, by hand as their exports are, and labels of ours there and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.data.formats.argilla import labels_of_record, record_of_label
from components.data.formats.base import Unmapped
from components.data.formats.detect import format_of
from components.data.formats.label_studio import labels_of_task, task_of_label
from components.data.formats.mapping import Mapped, map_rows

Row = dict[str, Any]
TALK = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "And then?"},
]
TOLD = "User: Why?\n\nAssistant: So.\n\nUser: And then?"


def mapped(*rows: Row) -> tuple[str, Mapped]:
    copies = [dict(row) for row in rows]
    fitting = format_of(copies, range(1, len(rows) + 1), "data/mine.json", "mine")
    return fitting.name, map_rows(copies, range(1, len(rows) + 1), fitting)


def label(name: str, annotator: str, verdict: str, **more: Any) -> Row:
    """A line as `proximal label` writes it."""
    return {
        "pair": name,
        "annotator": annotator,
        "label": verdict,
        "prompt": f"ask {name}",
        "shown": [
            {"policy": {"name": "artifacts/sft/policy", "digest": "11"}, "text": "old", "reward": 0.5, "judge": -1.0},
            {"policy": {"name": "policy@champion", "digest": "22"}, "text": "new", "reward": 0.25, "judge": 2.0},
        ],
        "time": "2026-01-02T03:04:05+00:00",
        **more,
    }


LABELS = [
    label("p", "Ann", "A", why="shorter; 1 is both"),
    label("p", "Bob", "B"),
    label("q", "Ann", "tie", why="both"),
    label("r", "Ann", "skip"),
    label("s", "Ann", "B", prompt=TOLD, messages=TALK),
]


def result(selected: str | None, why: str = "") -> list[Row]:
    """As Label Studio's editor writes them: a Pairwise tag is control and object at once."""
    pairwise = {
        "id": "Dx_aB91ISN",
        "type": "pairwise",
        "value": {"selected": selected},
        "origin": "manual",
        "to_name": "comparison",
        "from_name": "comparison",
    }
    area = {"id": "x", "type": "textarea", "value": {"text": [why]}, "from_name": "why", "to_name": "prompt"}
    return [*([pairwise] if selected else []), *([area] if why else [])]


def task(*annotations: Row, **data: Any) -> Row:
    """Of the template "Human Preference collection for RLHF", as its JSON export has it."""
    return {
        "id": 71,
        "annotations": [
            {
                "id": 1000 + number,
                "completed_by": 1,
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2026-05-11T13:00:11.592787Z",
                "updated_at": "2026-05-11T13:00:15.675992Z",
                "lead_time": 6.492,
                "task": 71,
                "parent_prediction": None,
                **annotation,
            }
            for number, annotation in enumerate(annotations)
        ],
        "drafts": [],
        "predictions": [],
        "data": {"prompt": "Why?", "answer1": "one", "answer2": "two", **data},
        "meta": {},
        "created_at": "2026-05-11T12:00:00.000000Z",
        "inner_id": 1,
        "total_annotations": len(annotations),
        "project": 3,
    }


def record(responses: Any, metadata: Row | None = None, **fields: str) -> Row:
    """As Argilla's `dataset.records.to_json` has it."""
    fields = fields or {"prompt": "Why?", "response1": "one", "response2": "two"}
    return {
        "id": "7",
        "fields": fields,
        "metadata": metadata or {},
        "suggestions": {"preference": {"value": ["response2", "response1"], "score": None, "agent": "a model"}},
        "responses": responses,
        "vectors": {},
        "_server_id": "0a1b",
    }


def test_label_studios_pairs_with_annotators_ties_and_skips() -> None:
    name, found = mapped(
        task(
            {"result": result("right", "It says more.")},
            {"result": result("left"), "completed_by": {"id": 2, "email": "bo@x.example", "first_name": "Bo"}},
            {"result": result(None), "completed_by": 3},  # submitted without a selection
            {"result": [], "completed_by": 4, "was_cancelled": True},
            topic="sky",
        ),
        task({"result": result(None), "completed_by": 3}),
    )
    assert name == "Label Studio's pairs"
    kept = {"topic": "sky", "prompt": "Why?", "pair": 71, "time": "2026-05-11T13:00:11.592787Z"}
    assert found.rows == [
        kept | {"id": "71/1", "annotator": "1", "chosen": "two", "rejected": "one", "shown_first": "rejected",
                "why": "It says more."},
        kept | {"id": "71/bo@x.example", "annotator": "bo@x.example", "chosen": "one", "rejected": "two",
                "shown_first": "chosen"},
    ]  # fmt: skip
    assert (found.numbers, found.unused, found.unmapped) == ([1, 1], {"neither answer was preferred": 1}, [])


@pytest.mark.parametrize(
    ("choice", "chosen"), [("answer2", "two"), ("Left", "one"), ("B", "two"), ("first", "one"), ("Tie", None)]
)
def test_a_choice_in_words_stands_for_a_selection(choice: str, chosen: str | None) -> None:
    choices = [{"type": "choices", "value": {"choices": [choice]}, "from_name": "better", "to_name": "prompt"}]
    _, found = mapped(task({"result": choices}))
    assert [row["chosen"] for row in found.rows] == ([] if chosen is None else [chosen])
    assert not found.unmapped


def test_other_names_of_parts_and_conversations() -> None:
    parts = {"prompt": None, "answer1": None, "answer2": None, "messages": TALK, "Response_A": "a", "Response_B": "b"}
    _, found = mapped(task({"result": result("left")}, **parts))
    assert [(row["prompt"], row["messages"], row["chosen"]) for row in found.rows] == [(TOLD, TALK, "a")]
    given = {"better": [{"value": "generation-1", "user_id": "u"}]}
    parts = {"instruction": "Why?", "generation-0": "a", "generation-1": "b"}
    assert [(row["prompt"], row["chosen"]) for row in mapped(record(given, **parts))[1].rows] == [("Why?", "b")]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (task({"result": result("up")}), "does not tell which of answer1 and answer2 is better: up"),
        (task({"result": result("left") + result("right")}), "better: left, right"),
        (task({"result": [{"type": "rating", "value": {"rating": 3}}]}), "better: rating"),
        (task({"result": "left"}), "annotations has one that is none of Label Studio's"),
        (task({"result": result("left")}, prompt=None), "data has no prompt"),
        (task({"result": result("left")}, answer2=None), "data names no two answers"),
        (record({"preference": [{"value": "good", "user_id": "u"}]}), "responses prefers no answer"),
        (record({"why": [{"value": "so", "user_id": "u"}]}), "there is no question but why"),
        (record({"preference": ["response1"]}), "responses is none of Argilla's"),
        (
            record({"a": [{"value": "response1", "user_id": "u"}], "b": [{"value": "response2", "user_id": "u"}]}),
            "responses has several questions that prefer answers: a, b",
        ),
    ],
)
def test_what_cannot_be_read_is_named(row: Row, fault: str) -> None:
    ((_, _, unmapped),) = mapped(row)[1].unmapped
    assert fault in f"{unmapped.column} {unmapped.message}"


def test_argillas_rankings_and_labels() -> None:
    ranking = [
        {"value": ["response2", "response1"], "user_id": "u1"},
        {"value": ["response1", "response2"], "user_id": "u2"},
    ]
    reasons = [{"value": "It says more.", "user_id": "u1"}]
    name, found = mapped(
        record({"preference": ranking, "rationale": reasons}, {"topic": "sky"}),
        record({"preference": [{"value": "response1", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}]}),
        record({"preference": [{"value": "tie", "user_id": "u1"}]}),
        record({}),
    )
    assert name == "Argilla's records"
    kept = {"topic": "sky", "prompt": "Why?", "pair": "7"}
    assert found.rows[:2] == [
        kept | {"id": "7/u1", "annotator": "u1", "chosen": "two", "rejected": "one", "shown_first": "rejected",
                "why": "It says more."},
        kept | {"id": "7/u2", "annotator": "u2", "chosen": "one", "rejected": "two", "shown_first": "chosen"},
    ]  # fmt: skip
    assert [(row["annotator"], row["chosen"]) for row in found.rows[2:]] == [("u1", "one")]
    assert (found.unused, found.unmapped) == ({"neither answer was preferred": 2}, [])


def test_argillas_ranks_of_three_answers_and_drafts() -> None:
    ranks = [{"rank": 1, "value": "response3"}, {"rank": 1, "value": "response1"}, {"rank": 2, "value": "response2"}]
    responses = [  # as its server answers
        {"user_id": "u1", "status": "submitted", "values": {"order": {"value": ranks}}},
        {"user_id": "u2", "status": "draft", "values": {"order": {"value": ranks[::-1]}}},
        {"user_id": "u3", "status": "discarded", "values": None},
    ]
    three = {"prompt": "Why?", "response1": "one", "response2": "two", "response3": "three"}
    _, found = mapped(record(responses, **three))
    assert [(row["chosen"], row["rejected"], row["annotator"]) for row in found.rows] == [
        ("three", "two", "u1"),
        ("one", "two", "u1"),
    ]
    columns = {"order": [{"value": {"rank": [2, 1], "value": ["response1", "response2"]}, "user_id": "u"}]}
    assert [row["chosen"] for row in mapped(record(columns))[1].rows] == ["two"]


def test_our_labels_come_back_from_label_studio_as_they_were() -> None:
    tasks = json.loads(json.dumps([task_of_label(each) for each in LABELS]))
    assert [each for task in tasks for each in labels_of_task(task)] == LABELS
    assert mapped(*tasks)[1].rows == mapped(*LABELS)[1].rows
    assert tasks[0]["data"]["answer1"] == "old"
    assert tasks[0]["annotations"][0]["result"][0] == {
        "id": "comparison", "type": "pairwise", "from_name": "comparison", "to_name": "comparison",
        "value": {"selected": "left"},
    }  # fmt: skip
    # There, somebody else judges it, too: with a name and time of their own.
    (theirs,) = task({"result": result("right")})["annotations"]
    both = labels_of_task(tasks[0] | {"annotations": [*tasks[0]["annotations"], theirs]})
    assert [(each["annotator"], each["label"], each["time"][:4]) for each in both] == [
        ("Ann", "A", "2026"),
        ("1", "B", "2026"),
    ]
    assert both[1]["time"] == theirs["created_at"]


def test_our_labels_come_back_from_argilla_as_they_were() -> None:
    records = json.loads(json.dumps([record_of_label(each) for each in LABELS]))
    skipped = [each for each in LABELS if each["label"] == "skip"]
    assert [each for record in records for each in labels_of_record(record)] == [
        each for each in LABELS if each not in skipped
    ]
    assert mapped(*records)[1].rows == mapped(*LABELS)[1].rows
    assert len({each["responses"]["preference"][0]["user_id"] for each in records if each["responses"]}) == 2
    assert records[3]["responses"] == {}  # it waits for somebody there
    # As `to_json` writes it: no status; and somebody else there has judged it, too.
    (mine,) = records[0]["responses"]["preference"]
    del mine["status"]
    records[0]["responses"]["preference"].append({"value": "response2", "user_id": "0c1d"})
    assert [(each["annotator"], each["label"]) for each in labels_of_record(records[0])] == [
        ("Ann", "A"),
        ("0c1d", "B"),
    ]


def test_labels_without_two_answers_are_refused() -> None:
    with pytest.raises(Unmapped, match="names no two answers"):
        labels_of_task({"data": {"prompt": "Why?", "image": "x"}, "annotations": [{"result": []}]})
