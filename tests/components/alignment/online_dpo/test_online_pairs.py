"""From scores to pairs and their rows, by hand: six words, four prompts of three responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from components.alignment.online_dpo.pairs import Maker, pairs_of, rows_of
from components.alignment.policy_gradient.rollouts import EncodedPrompt, Rollouts
from components.config import OnlineDpo, Params
from components.data.rows import Prompt, columns_of
from components.models.text import Codec
from components.passes.sequences import build_sequences

MAKER = Maker(policy="0123456789abcdef.dir", reward_model="fedcba9876543210.dir", cycle=2, iteration=5)


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., OnlineDpo]:
    plain = {"responses_per_prompt": 3, "missing_eos": "none"}
    return lambda **changes: tiny_params(online_dpo=plain | changes).online_dpo


@pytest.fixture
def rolled_out(word_codec: Codec) -> Callable[..., Rollouts]:
    """Rollouts of these responses, which are words; those without a last "." have not ended."""

    def of(responses: Sequence[str], scores: Sequence[float]) -> Rollouts:
        codec = word_codec
        tokens = [
            codec.tokenizer.encode(text.removesuffix(".")) + [codec.eos_id] * text.endswith(".") for text in responses
        ]
        sequences = build_sequences([[2, 3]] * len(tokens), tokens, codec.pad_id)
        nothing = torch.zeros(sequences.response_mask.shape)
        ended = torch.tensor([text.endswith(".") for text in responses])
        return Rollouts(sequences, torch.tensor(scores), ended, *[nothing] * 5)

    return of


def words(codec: Codec) -> list[str]:
    """Two words that are no control tokens."""
    return [word for word in codec.tokenizer.get_vocab() if not word.startswith("<")][:2]


def pairs_found(pairs: Any) -> list[tuple[int, int]]:
    return list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))


def test_the_best_and_the_worst_of_each_prompt_but_for_ties(rolled_out: Any, settings: Any, word_codec: Codec) -> None:
    a, b = words(word_codec)
    responses = [f"{a}.", f"{b}.", f"{a} {b}."] * 3 + [f"{a}."] * 3
    # One text has two scores a last bit apart: that is rounding, and no preference.
    scores = [1.0, 3.0, 2.0, 0.5, 0.5, 0.5, -1.0, 0.0, -2.0, 4.0, 4.0000005, 4.0]
    pairs = pairs_of(rolled_out(responses, scores), settings(), word_codec)
    assert pairs_found(pairs) == [(1, 0), (7, 8)]
    assert pairs.ties == 2
    assert pairs.both.tolist() == [1, 7, 0, 8]
    assert pairs.mean_gap() == pytest.approx(2.0)  # of 3 - 1 and 0 - -2


def test_a_missing_end_and_a_length_count_before_responses_are_told_apart(
    rolled_out: Any, settings: Any, word_codec: Codec
) -> None:
    a, b = words(word_codec)
    made = rolled_out([f"{a}.", f"{b}", f"{a} {b}."], [1.0, 9.0, 2.0])
    assert pairs_found(pairs_of(made, settings(), word_codec)) == [(1, 0)]
    replaced = pairs_of(made, settings(missing_eos="replace", missing_eos_value=-3.0), word_codec)
    assert pairs_found(replaced) == [(2, 1)] and replaced.scores.tolist() == [1.0, -3.0, 2.0]
    # Of three tokens, one beyond a limit of two without a buffer... the limit begins to cost after 3 - 1 = 2 tokens.
    penalty = {"limit_tokens": 3, "buffer_tokens": 1, "factor": 4.0}
    shorter = pairs_of(made, settings(length_penalty=penalty), word_codec)
    assert shorter.scores.tolist() == [1.0, 9.0, -2.0] and pairs_found(shorter) == [(1, 2)]


def test_nothing_but_ties_is_no_pair(rolled_out: Any, settings: Any, word_codec: Codec) -> None:
    a, b = words(word_codec)
    pairs = pairs_of(rolled_out([f"{a}.", f"{b}.", f"{a}."], [1.0, 1.0, 1.0]), settings(), word_codec)
    assert pairs_found(pairs) == [] and pairs.ties == 1


def test_a_row_says_what_it_is_and_where_it_comes_from(rolled_out: Any, settings: Any, word_codec: Codec) -> None:
    a, b = words(word_codec)
    rollouts = rolled_out([f"{a}.", f"{b}.", f"{a} {b}."], [1.0, 3.0, 2.0])
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
    prompt = EncodedPrompt(Prompt("p7", "Which?", messages=messages, extra={"level": 3}), [2, 3])
    (row,) = rows_of(pairs_of(rollouts, settings(), word_codec), [prompt] * 3, MAKER)
    assert columns_of(row) == {
        "id": "online/0123456789ab/5/0",
        "prompt": "Which?",
        "messages": messages,
        "chosen": b,
        "rejected": a,
        "source": "online/reward_model",
        "annotator": "reward_model/fedcba987654",
        "level": 3,
        "prompt_id": "p7",
        "chosen_score": 3.0,
        "rejected_score": 1.0,
        "policy": "0123456789abcdef.dir",
        "reward_model": "fedcba9876543210.dir",
        "cycle": 2,
        "iteration": 5,
    }
