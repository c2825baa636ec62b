"""A row of each format by hand, and the rows of ours that it must become."""

from __future__ import annotations

from typing import Any

import pytest

from components.data.formats.detect import FORMATS, format_of
from components.data.formats.mapping import Mapped, map_rows
from components.errors import DataError

Row = dict[str, Any]


def turn(role: str, content: str) -> Row:
    return {"role": role, "content": content}


ASK, SAY, AGAIN = turn("user", "Why?"), turn("assistant", "So."), turn("user", "And then?")
TALK = [ASK, SAY, AGAIN]
TOLD = "User: Why?\n\nAssistant: So.\n\nUser: And then?"
GOOD, BAD = turn("assistant", "Good."), turn("assistant", "Bad.")
PAIR = {"chosen": "Good.", "rejected": "Bad."}
HH = "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: And then?\n\nAssistant:"


def mapped(*rows: Row, stem: str = "mine") -> tuple[str, Mapped]:
    copies = [dict(row) for row in rows]
    numbers = list(range(1, len(rows) + 1))
    fitting = format_of(copies, numbers, "data/mine.jsonl", stem)
    return fitting.name, map_rows(copies, numbers, fitting)


CASES: dict[str, tuple[str, list[Row], list[Row]]] = {
    "texts": ("prompt, chosen, rejected", [{"prompt": "Why?", **PAIR, "n": 3}], [{"prompt": "Why?", **PAIR, "n": 3}]),
    "a prompt as messages": (
        "prompt, chosen, rejected",
        [{"prompt": TALK, **PAIR}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "one turn is its text": ("prompt, chosen, rejected", [{"prompt": [ASK], **PAIR}], [{"prompt": "Why?", **PAIR}]),
    "a prompt as a dialogue of HH's": (
        "prompt, chosen, rejected",
        [{"prompt": HH, **PAIR}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "the same without blank lines before it": (
        "prompt, chosen, rejected",
        [{"prompt": HH.strip(), **PAIR}, {"prompt": "Human: Why?\n\nAssistant:", **PAIR}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}, {"prompt": "Why?", **PAIR}],
    ),
    "a system prompt in a column": (
        "prompt, chosen, rejected",
        [{"system": "Be brief.", "prompt": "Why?", **PAIR}, {"system": "", "prompt": "Why?", **PAIR}],
        [
            {"prompt": "System: Be brief.\n\nUser: Why?", "messages": [turn("system", "Be brief."), ASK], **PAIR},
            {"system": "", "prompt": "Why?", **PAIR},
        ],
    ),
    "our own with messages": (
        "prompt, chosen, rejected",
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "messages, prompt apart": (
        "chosen and rejected as messages",
        [{"prompt": TALK, "chosen": [GOOD], "rejected": [BAD]}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "messages, prompt implied": (
        "chosen and rejected as messages",
        [{"chosen": [*TALK, GOOD], "rejected": [*TALK, BAD]}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "UltraFeedback": (
        "chosen and rejected as messages",
        [{"prompt": "Why?", "prompt_id": "u", "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "messages": [ASK, GOOD],
          "score_chosen": 8.5, "score_rejected": 2.0}],
        [{"prompt": "Why?", "prompt_id": "u", **PAIR, "score_chosen": 8.5, "score_rejected": 2.0}],
    ),
    "ShareGPT's pairs": (
        "chosen and rejected as messages",
        [{"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "Good."},
          "rejected": {"from": "gpt", "value": "Bad."}}],
        [{"prompt": "Why?", **PAIR}],
    ),
    "whole dialogues of HH's": (
        "HH dialogues",
        [{"chosen": HH + " Good.", "rejected": HH + " Bad."}],
        [{"prompt": TOLD, "messages": TALK, **PAIR}],
    ),
    "texts with a shared beginning": (
        "chosen and rejected with a shared beginning",
        [{"chosen": "The sky is blue.", "rejected": "The sky is black."}],
        [{"prompt": "The sky is", "chosen": " blue.", "rejected": " black."}],
    ),
    "ranks, of which 1 is the best": (
        "ranked answers",
        [{"id": 7, "prompt": "Why?", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]}],
        [
            {"id": "7/2-1", "prompt": "Why?", "chosen": "b", "rejected": "a", "rank_chosen": 1, "rank_rejected": 2},
            {"id": "7/2-3", "prompt": "Why?", "chosen": "b", "rejected": "c", "rank_chosen": 1, "rank_rejected": 2},
        ],
    ),
    "scores, of which the highest is the best": (
        "ranked answers",
        [{"prompt": "Why?", "responses": ["a", "b"], "scores": [0.5, 9]}],
        [{"prompt": "Why?", "chosen": "b", "rejected": "a", "score_chosen": 9, "score_rejected": 0.5}],
    ),
    "answers with ranks by another name": (
        "ranked answers",
        [{"prompt": "Why?", "answers": ["a", "b"], "ranking": [2, 1]}],
        [{"prompt": "Why?", "chosen": "b", "rejected": "a", "rank_chosen": 1, "rank_rejected": 2}],
    ),
    "Nectar": (
        "ranked answers as records",
        [
            {"prompt": "\n\nHuman: Why?\n\nAssistant: ", "turns": 1, "id": 4, "answers": [
                {"answer": "a", "model": "m", "rank": 2.0}, {"answer": "b", "model": "n", "rank": 1.0}]}
        ],
        [
            {"prompt": "Why?", "turns": 1, "id": "4/2-1", "chosen": "b", "rejected": "a",
             "rank_chosen": 1.0, "rank_rejected": 2.0, "model_chosen": "n", "model_rejected": "m"}
        ],
    ),
    "records with scores, one of them by a tie": (
        "ranked answers as records",
        [{"prompt": [ASK], "responses": [
            {"response": "a", "score": 3}, {"response": "b", "score": 5, "by": "x"}, {"response": "c", "score": 5}]}],
        [
            {"prompt": "Why?", "chosen": "b", "rejected": "a", "score_chosen": 5, "score_rejected": 3,
             "by_chosen": "x", "by_rejected": None},
            {"prompt": "Why?", "chosen": "c", "rejected": "a", "score_chosen": 5, "score_rejected": 3},
        ],
    ),
    "prompts with reference answers": (
        "prompts",
        [{"prompt": "Why?", "answers": []}, {"prompt": "Who?", "answers": ["I", "me"]}],
        [{"prompt": "Why?", "answers": []}, {"prompt": "Who?", "answers": ["I", "me"]}],
    ),
    "labelled answers": (
        "unpaired answers",
        [
            {"id": "a", "prompt": "Why?", "completion": "Bad.", "label": False},
            {"id": "b", "prompt": "Why?", "completion": "Good.", "label": True},
            {"id": "c", "prompt": "Why?", "completion": "Fine.", "label": True},
            {"id": "d", "prompt": "Who?", "completion": "Me.", "label": True},
        ],
        [
            {"id": "b/a", "prompt": "Why?", "chosen": "Good.", "rejected": "Bad."},
            {"id": "c/a", "prompt": "Why?", "chosen": "Fine.", "rejected": "Bad."},
        ],
    ),
    "prompt, response": ("prompt, response", [{"prompt": "Why?", "response": "So.", "answer": "42"}],
                         [{"prompt": "Why?", "response": "So.", "answer": "42"}]),
    "prompt, completion": ("prompt, response", [{"prompt": "Why?", "completion": "So."}],
                           [{"prompt": "Why?", "response": "So."}]),
    "prompt, completion as messages": (
        "prompt, response",
        [{"prompt": [ASK], "completion": [SAY]}],
        [{"prompt": "Why?", "response": "So."}],
    ),
    "a dialogue, one demonstration for each turn of the assistant's": (
        "dialogues as messages",
        [{"id": "d", "messages": [*TALK, GOOD]}, {"id": "e", "messages": [ASK, SAY]}],
        [
            {"id": "d/1", "prompt": "Why?", "response": "So."},
            {"id": "d/2", "prompt": TOLD, "messages": TALK, "response": "Good."},
            {"id": "e", "prompt": "Why?", "response": "So."},
        ],
    ),
    "ShareGPT": (
        "dialogues as messages",
        [{"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}],
        [{"prompt": "Why?", "response": "So."}],
    ),
    "alpaca": (
        "alpaca",
        [
            {"instruction": "Add.", "input": "1 1", "output": "2"},
            {"instruction": "Why?", "input": "", "output": "So."},
        ],
        [{"prompt": "Add.\n\n1 1", "response": "2"}, {"prompt": "Why?", "response": "So."}],
    ),
    "prompts": ("prompts", [{"prompt": "Why?", "answer": "42"}], [{"prompt": "Why?", "answer": "42"}]),
    "prompts as messages": (
        "prompts as messages",
        [{"messages": TALK, "kind": "known"}],
        [{"prompt": TOLD, "messages": TALK, "kind": "known"}],
    ),
    "our own prompts, some with messages": (
        "prompts",
        [{"prompt": "Why?"}, {"prompt": TOLD, "messages": TALK}],
        [{"prompt": "Why?"}, {"prompt": TOLD, "messages": TALK}],
    ),
    "labels of the page": (
        "labels of the page",
        [
            {"pair": "q", "annotator": "Ann", "label": "B", "prompt": TOLD, "messages": TALK, "time": "now",
             "shown": [{"text": "Bad.", "policy": {"name": "sft", "digest": "1"}, "reward": 0.5, "judge": 0.5},
                       {"text": "Good.", "policy": {"name": "best", "digest": "2"}, "reward": 0.0, "judge": 1.0}]},
            {"pair": "q", "annotator": "Bob", "label": "tie", "prompt": "Why?", "shown": [], "time": "now"},
        ],
        [
            {"id": "q/Ann", "pair": "q", "annotator": "Ann", "prompt": TOLD, "messages": TALK, **PAIR, "time": "now",
             "source": "label", "shown_first": "rejected", "policy_chosen": "best", "digest_chosen": "2",
             "policy_rejected": "sft", "digest_rejected": "1"},
        ],
    ),
    "a pair of Label Studio's": (
        "Label Studio's pairs",
        [{"id": 3, "data": {"prompt": "Why?", "answer1": "Bad.", "answer2": "Good."}, "annotations": [
            {"completed_by": 5, "result": [{"type": "pairwise", "value": {"selected": "right"}}]}]}],
        [{"id": "3/5", "pair": 3, "annotator": "5", "prompt": "Why?", **PAIR, "shown_first": "rejected"}],
    ),
    "a pair of Argilla's": (
        "Argilla's records",
        [{"id": "3", "fields": {"prompt": "Why?", "response1": "Bad.", "response2": "Good."}, "metadata": {},
          "responses": {"better": [{"value": ["response2", "response1"], "user_id": "5"}]}}],
        [{"id": "3/5", "pair": "3", "annotator": "5", "prompt": "Why?", **PAIR, "shown_first": "rejected"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rows_become_ours(case: str) -> None:
    name, raw, ours = CASES[case]
    found, result = mapped(*raw)
    assert found == name
    assert result.unmapped == []
    assert result.rows == ours


def test_every_format_has_a_row_here() -> None:
    assert {name for name, _, _ in CASES.values()} == {each.name for each in FORMATS} | {"prompts as messages"}


def test_our_own_rows_are_not_even_copied() -> None:
    for stem, row in {
        "prompts": {"id": "p", "prompt": "Why?", "response": "a column of mine"},
        "demonstrations": {"id": "d", "prompt": "Why?", "response": "So."},
        "comparisons": {"id": "c", "prompt": "Why?", **PAIR},
    }.items():
        rows = [row]
        assert map_rows(rows, [1], format_of(rows, [1], "x", stem)).rows[0] is row


def test_a_label_that_is_none_is_told_by_its_column() -> None:
    row = {"pair": "q", "annotator": "Ann", "prompt": "Why?", "label": "C", "shown": [{}, {}]}
    faults = [fault.column for _, _, fault in mapped(row, {**row, "label": "A"})[1].unmapped]
    assert faults == ["label", "shown"]


def test_what_is_left_over_is_counted() -> None:
    assert mapped(*CASES["labelled answers"][1])[1].unused == {"no answer of the other label to its prompt": 1}
    ranked = {"prompt": "Why?", "responses": ["a", "b"], "ranks": [1, 1]}
    assert mapped(ranked, CASES["ranks, of which 1 is the best"][1][0])[1].unused == {
        "no answer is better than another": 1
    }


def test_pairs_of_one_good_and_many_bad_answers_use_all() -> None:
    rows = [{"prompt": "p", "completion": str(place), "label": place == 0} for place in range(4)]
    pairs = mapped(*rows)[1].rows
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [("0", "1"), ("0", "2"), ("0", "3")]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"chosen": [ASK, GOOD], "rejected": [AGAIN, BAD]}, "chosen and rejected do not share the prompt"),
        ({"chosen": [ASK, GOOD, AGAIN], "rejected": [ASK, BAD]}, "chosen does not end with a turn of the assistant's"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "there is no prompt"),
        ({"prompt": "Who?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "prompt is none of the turns"),
        ({"prompt": [AGAIN], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "prompt is not what chosen"),
        ({"prompt": [ASK, SAY], **PAIR}, "prompt asks nothing: its last turn is not the user's"),
        ({"prompt": "Who?", "messages": TALK, **PAIR}, "prompt is nothing that messages asks"),
        ({"prompt": [turn("tool", "x")], **PAIR}, "prompt has a turn whose role is none of system,"),
        ({"prompt": [turn("user", 3)], **PAIR}, "prompt has a turn whose content is not text"),  # type: ignore[arg-type]
        ({"prompt": ["Why?"], **PAIR}, "prompt has a turn that is no message"),
        ({"messages": "Why?"}, "messages is no list of messages"),
        ({"messages": [SAY]}, "messages asks nothing"),
        ({"messages": [ASK, SAY, AGAIN]}, "messages does not end with a turn of the assistant's"),
        ({"chosen": HH + " Good.", "rejected": HH.replace("Why", "Who") + " Bad."}, "do not share the prompt"),
        ({"chosen": HH + " Good.\n\nHuman: Thanks.", "rejected": HH + " Bad."}, "chosen does not end with a turn"),
        ({"chosen": "Yes.", "rejected": "No."}, "they begin differently"),
        ({"prompt": "Why?", "responses": ["a", "b"], "ranks": [1]}, "ranks has 1 values for 2 responses"),
        ({"prompt": "Why?", "responses": ["a", "b"], "ranks": [1, None]}, "ranks has values that are no numbers"),
        ({"prompt": "Why?", "answers": []}, "answers is no list of records"),
        ({"prompt": "Why?", "answers": [{"answer": "a", "rank": 1}, {"answer": "b"}]}, "answers has an answer without"),
        ({"prompt": "Why?", "answers": [{"answer": "a", "rank": "1"}]}, "answers.rank has values that are no numbers"),
        ({"prompt": "Why?", "completion": "So.", "label": "good"}, "label is neither true nor false"),
    ],
)
def test_a_row_that_cannot_be_mapped_is_named(row: Row, fault: str) -> None:
    """Beside a sound one of its format, which is mapped all the same."""
    if "messages" in row and "chosen" not in row:
        sound: Row = {"messages": [ASK, SAY]}
    elif "ranks" in row:
        sound = {"prompt": "Why?", "responses": ["a", "b"], "ranks": [1, 2]}
    elif "answers" in row:
        sound = {"prompt": "Why?", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}
    elif "label" in row:
        sound = {"prompt": "Why?", "completion": "So.", "label": True}
    elif isinstance(row["chosen"], list):
        sound = {"prompt": "Why?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}
    elif "prompt" in row:
        sound = {"prompt": "Why?", **PAIR}
    else:
        sound = {"chosen": HH + " Good.", "rejected": HH + " Bad."} if "Human" in row["chosen"] else {
            "chosen": "It is so.", "rejected": "It is not."}  # fmt: skip
    _, result = mapped(sound, row)
    ((number, content, unmapped),) = result.unmapped
    assert (number, content) == (2, row)
    assert fault in f"{unmapped.column} {unmapped.message}"
    assert "label" in row or len(result.rows) == 1


def test_rows_that_lack_a_column_are_faulty_rows_of_their_files_format() -> None:
    rows = [{"prompt": "Why?", **PAIR}, {"prompt": "Who?"}, {"chosen": "a", "rejected": "b"}, {"id": 3}]
    name, result = mapped(*rows)
    assert name == "prompt, chosen, rejected"
    assert result.rows == rows  # the row checks name what they lack


def test_mixed_formats_are_refused_with_a_row_of_each() -> None:
    with pytest.raises(DataError, match="mixes formats") as caught:
        mapped({"prompt": "Why?", **PAIR}, {"prompt": "Why?", **PAIR}, {"prompt": "Why?", "completion": "So."})
    assert caught.value.where == "data/mine.jsonl"
    assert caught.value.found == "prompt, chosen, rejected, first in row 1; prompt, response, first in row 3"


def test_columns_of_no_format_are_refused() -> None:
    with pytest.raises(DataError, match="fit no format") as caught:
        mapped({"question": "Why?", "reply": "So."})
    assert caught.value.found == "columns question, reply"
    assert caught.value.expected.startswith(
        "prompts: [prompt]; demonstrations: [prompt, and response or completion], or ["
    )


@pytest.mark.parametrize("row", [{"prompt": "Why?", "rejected": "No."}, {"prompt": "Why?", "response": "So."}])
def test_a_name_that_says_another_role_is_refused(row: Row) -> None:
    with pytest.raises(DataError) as caught:
        mapped(row, stem="comparisons")
    assert "data/mine.jsonl, column chosen" in caught.value.where
