"""What the limits cut away is counted and told; pairs that are alike without it are left out by name."""

from __future__ import annotations

import pytest
from chats import tokenizer_of

from components.data.rows import Comparison, Message
from components.errors import DataError
from components.models.cuts import cut_fractions, cut_fractions_of_pairs, distinct_pairs
from components.models.text import Codec, TextFormat
from components.passes.sequences import comparison_pairs

# The word codec keeps 4 tokens of a prompt and 3 of a response.
PAIRS = [
    Comparison("differ", "a", "a b", "b"),
    Comparison("alike", "a b c d a", "a b c d", "a b c a"),
    Comparison("ends", "b", "a b", "a b c"),
    Comparison("same but for the end token", "b", "a", "a <eos>"),
]


def test_cuts_are_counted_and_much_is_warned_about(word_codec: Codec, caplog: pytest.LogCaptureFixture) -> None:
    responses = word_codec.encode_responses(["a"] * 18 + ["a b c", "a b c d"])
    prompts = ["a b c d"] * 19 + ["a b c d a"]
    found = cut_fractions(word_codec, "sft", prompts, responses)
    assert found == {"truncated_prompts_fraction": 0.05, "truncated_responses_fraction": 0.1}
    [warning] = caplog.messages  # 5 % is not above 5 %
    assert "sft: 10.0 % of the responses" in warning and "language_model.max_response_tokens (3)" in warning
    assert cut_fractions(word_codec, "evaluation", prompts) == {"truncated_prompts_fraction": 0.05}
    of_pairs = cut_fractions_of_pairs(word_codec, "judge", PAIRS)
    assert of_pairs == {"truncated_prompts_fraction": 0.25, "truncated_responses_fraction": 3 / 8}
    assert "language_model.max_prompt_tokens (4)" in caplog.text


def test_pairs_that_are_alike_after_the_cut_are_left_out_by_name(
    word_codec: Codec, caplog: pytest.LogCaptureFixture
) -> None:
    assert [row.id for row in distinct_pairs(PAIRS, word_codec, "some.jsonl")] == ["differ", "ends"]
    [warning] = caplog.messages
    assert "some.jsonl: 2 of 4" in warning and "alike, same but for the end token" in warning
    assert distinct_pairs(PAIRS[:1], word_codec, "some.jsonl") == PAIRS[:1] and len(caplog.messages) == 1
    assert distinct_pairs([], word_codec, "some.jsonl") == []


def test_no_pair_left_is_an_error(word_codec: Codec) -> None:
    with pytest.raises(DataError, match=r"(?s)some\.jsonl.*max_response_tokens.*alike"):
        distinct_pairs(PAIRS[1:2], word_codec, "some.jsonl")


def test_conversations_are_counted_as_they_are_asked() -> None:
    """Two of three are too long for their template, one of them for its earlier turns; the ends of turn count."""
    codec = Codec(tokenizer_of("chatml"), TextFormat(None, 40, 4))
    long = [Message(role=role, content="one two " * 9) for role in ("user", "assistant")]
    rows = [
        Comparison(str(number), "said", "Yes.", "one two three four five", messages=messages)
        for number, messages in enumerate(
            [None, [*long, Message(role="user", content="x")], [Message(role="user", content="one two " * 20)]]
        )
    ]
    fractions = cut_fractions_of_pairs(codec, "a test", rows)
    assert fractions == {"truncated_prompts_fraction": 2 / 3, "truncated_responses_fraction": 1 / 2}
    assert distinct_pairs(rows, codec, "a test") == rows
    pairs = comparison_pairs(rows, codec)
    assert pairs.prompt_tokens[1][pairs.prompt_mask[1]].tolist() == codec.encode_prompts(["x"])[0]
