"""A stored chat policy answers texts and conversations, each as its template asks, and stops where a turn ends."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import tokenizer_of

from components.engines.answering import Answerer
from components.errors import ConfigError
from components.models.loading import save_policy
from components.models.text import Codec, TextFormat

TURNS: list[Any] = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "well <|end|> ,"},
]


@pytest.fixture(scope="module")
def policy() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    size = len(tokenizer_of("phi"))
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def test_the_answer_is_what_transformers_generates_from_the_templates_ids(policy: Any, tmp_path: Path) -> None:
    """Greedily, to a text and to a conversation, up to the template's end of turn."""
    tokenizer = tokenizer_of("phi")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    save_policy(policy, Codec(tokenizer, TextFormat(None, 100, 20)), tmp_path / "policy")
    asked: list[Any] = ["hello", TURNS[:1] + TURNS[1:2] + [{"role": "user", "content": "well"}]]
    expected = []
    for prompt in asked:
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        made = policy.generate(
            torch.tensor([ids]),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=[end, tokenizer.eos_token_id],
            pad_token_id=0,
        )
        expected.append(tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True).strip())
    answers = Answerer(tmp_path / "policy").answer(asked, temperature=0, max_response_tokens=8, seed=1)
    assert answers == expected and any(answers)


def test_an_end_of_turn_ends_the_answer(policy: Any, tmp_path: Path) -> None:
    """What the policy says first is made the template's end of turn; nothing but the template names it as an end."""
    tokenizer = tokenizer_of("phi")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    ids = tokenizer.apply_chat_template(TURNS[:1], add_generation_prompt=True, return_dict=False)
    ending = copy.deepcopy(policy)
    with torch.no_grad():
        likeliest = int(ending(torch.tensor([ids])).logits[0, -1].argmax())
        ending.lm_head.weight[[likeliest, end]] = ending.lm_head.weight[[end, likeliest]]
    answers = {}
    for name, model in (("ending", ending), ("policy", policy)):
        save_policy(model, Codec(tokenizer, TextFormat(None, 100, 20)), tmp_path / name)
        answers[name] = Answerer(tmp_path / name).answer(["hello"], temperature=0, max_response_tokens=8, seed=1)
    assert answers["ending"] == [""] != answers["policy"]


def test_a_conversation_is_refused_by_a_policy_without_a_chat_template(policy: Any, tmp_path: Path) -> None:
    save_policy(policy, Codec(tokenizer_of("phi"), TextFormat("{prompt}", 100, 20)), tmp_path / "policy")
    with pytest.raises(ConfigError, match="no chat template for messages"):
        Answerer(tmp_path / "policy").answer([TURNS], temperature=0, max_response_tokens=8, seed=1)
