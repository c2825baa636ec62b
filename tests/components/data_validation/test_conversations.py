"""Prompts of several turns: what holds of their messages, and who sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.page import page_of
from components.data_validation.report import report_of
from components.data_validation.schemas import frame_of, row_faults, schema_of
from components.data_validation.validate import Validated, validate
from components.errors import DataError

Limits = Callable[..., DataValidation]
Turns = list[dict[str, Any]]


def turns(*texts: str, system: str | None = None) -> Turns:
    """User and assistant in turn."""
    spoken = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + spoken


def row(messages: object, number: int = 0) -> dict[str, Any]:
    """A prompt, with a transcript that has no fault of its own."""
    return {"id": f"p{number}", "prompt": f"User: question {number}", "messages": messages}


def faults(limits: DataValidation, *messages: object) -> dict[int, list[str]]:
    rows = [row(each, number) for number, each in enumerate(messages)]
    found = row_faults(frame_of(rows), schema_of("prompts", limits))
    return {position: [str(fault) for fault in listed] for position, listed in found.items()}


def test_sound_conversations_have_no_fault(limits: Limits) -> None:
    sound = (turns("one"), turns("one", "two", "three"), turns("one", system="Be kind."), None)
    assert faults(limits(), *sound) == {}


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "messages are no turns, each with a role and a content"),
        ("User: one", "messages are no turns, each with a role and a content"),
        (3, "messages are no turns, each with a role and a content"),
        (["one"], "messages are no turns, each with a role and a content"),
        ([{"role": "user"}], "messages are no turns, each with a role and a content"),
        ([{"role": "user", "content": ["one"]}], "messages are no turns, each with a role and a content"),
        ([{"role": "user", "content": "one", "name": "ann"}], "messages are no turns, each with a role and a content"),
        ([{"role": "tool", "content": "one"}, *turns("two")], "messages have a role that is none of system, user, "),
        ([*turns("one"), *turns("two")], "messages do not alternate: a system prompt first if at all"),
        ([*turns("one", "two"), *turns("three", system="late")], "messages do not alternate: a system prompt first"),
        (turns("one", "two")[1:] + turns("three"), "messages do not alternate: a system prompt first if at all"),
        (turns("one", "two"), "messages do not end with the user's turn"),
        (turns("one", " \u200b", "three"), "messages have an empty turn"),
        (turns("one", "caf\u00c3\u00a9", "three"), "messages have an encoding fault"),
    ],
)
def test_a_conversation_that_cannot_be_is_named(limits: Limits, messages: object, fault: str) -> None:
    found = faults(limits(), turns("sound"), messages)
    assert list(found) == [1] and len(found[1]) == 1
    assert found[1][0].startswith(fault)


def word_count(texts: Any) -> list[int]:
    return [len(text.split()) for text in texts]


def test_limits_in_tokens_count_the_texts_of_all_turns(limits: Limits) -> None:
    few = limits(max_prompt_tokens=4, max_response_tokens=3)
    comparison = {"id": "c", "prompt": "one two three four", "chosen": "one two three", "rejected": "no", "source": "s"}
    rows = [
        comparison,
        comparison | {"id": "c2", "prompt": "one two three four five"},
        comparison | {"id": "c3", "prompt": "User: one", "messages": turns("one", "two three", "four")},
        comparison | {"id": "c4", "prompt": "User: two", "messages": turns("one", "two three", "four five")},
        comparison | {"id": "c5", "rejected": "one two three four"},
    ]
    found = row_faults(frame_of(rows), schema_of("comparisons", few, word_count))
    assert {position: [str(fault) for fault in listed] for position, listed in found.items()} == {
        1: ["prompt is too long (over 4 tokens)"],
        3: ["prompt is too long (over 4 tokens)"],
        4: ["rejected is too long (over 3 tokens)"],
    }


def dialogue(world: Any, number: int) -> dict[str, Any]:
    """A longer dialogue that begins with the question of a prompt."""
    question = world.prompts[number]["prompt"]
    return {
        "prompt": f"User: {question}\n\nAssistant: reply{number}\n\nUser: and then{number}?",
        "messages": turns(question, f"reply{number}", f"and then{number}?"),
    }


def validated(world: Any, limits: DataValidation) -> Validated:
    return validate(world.raw(), limits, 1)


def test_a_dialogue_that_begins_with_a_heldout_question_does_not_train(world: Any, limits: Limits) -> None:
    world.demonstrations[0] |= dialogue(world, 25)  # of validation
    world.comparisons[3] |= dialogue(world, 35) | {"pair": "another"}  # of test
    found = validated(world, limits())
    assert [(rejected.file, rejected.row) for rejected in found.rejected] == [("demonstrations", 1), ("comparisons", 4)]
    assert {str(fault) for rejected in found.rejected for fault in rejected.faults} == {
        "prompt is a validation or test prompt"
    }


def test_dialogues_that_begin_alike_are_in_one_split(world: Any, limits: Limits) -> None:
    world.prompts.append({"id": "more", "split": "train", "kind": "known"} | dialogue(world, 35))
    with pytest.raises(DataError) as error:
        validated(world, limits())
    assert error.value.expected == "every prompt is in one split, as have all dialogues that begin alike"
    assert "row 36 (test) and row 41 (train)" in (error.value.found or "")


def test_drawn_splits_follow_the_first_question(world: Any, limits: Limits) -> None:
    world.drop("prompts", "split")
    plain = {row["id"]: part for part in ("train", "validation", "test") for row in parts(world, limits)[part]}
    for number in range(40):
        world.prompts.append({"id": f"longer{number}"} | dialogue(world, number))
    found = {row["id"]: part for part in ("train", "validation", "test") for row in parts(world, limits)[part]}
    assert {f"p{number}": found[f"p{number}"] for number in range(40)} == plain
    assert all(found[f"longer{number}"] == plain[f"p{number}"] for number in range(40))


def parts(world: Any, limits: Limits) -> dict[str, list[dict[str, Any]]]:
    found = validated(world, limits()).parts
    return {part: found[f"prompts_{part}"] for part in ("train", "validation", "test")}


def test_comparisons_of_one_first_question_are_held_out_together(world: Any, limits: Limits) -> None:
    for number in range(20):
        world.comparisons.append(world.comparisons[2 * number] | {"id": f"l{number}", "pair": f"l{number}"})
        world.comparisons[-1] |= dialogue(world, number)
    found = validated(world, limits()).parts
    heldout = {row["id"] for scorer in ("reward_model", "judge") for row in found[f"comparisons_{scorer}_heldout"]}
    assert 0 < len(heldout) < 60
    assert {f"c{number}-ada" in heldout for number in range(20)} == {True, False}
    assert all((f"l{number}" in heldout) == (f"c{number}-ada" in heldout) for number in range(20))


def test_the_report_tells_of_conversations(world: Any, limits: Limits) -> None:
    for number in range(3):
        world.prompts[number] |= dialogue(world, number)
    raw, found = world.raw(), validated(world, limits())
    report = report_of(raw, found, word_count)
    assert report["prompts"]["median_turns"] == 1 and report["prompts"]["most_turns"] == 3
    # of 40 prompts 37 are five words; the others 5 + 1 + 2
    assert report["prompts"]["median_tokens"] == 5 and report["prompts"]["tokens_of_95_percent"] == 8
    page = page_of(raw, found, report)
    assert "3 of 40 (7.5%), 0 with a system prompt; 1 turns a prompt (median), 3 at most" in page
    plain = report_of(raw, found)
    assert "median_tokens" not in plain["prompts"]
