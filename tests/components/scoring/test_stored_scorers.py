"""A stored classifier as a part of a scorer, against transformers' own answer to one sequence at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from components.config.scoring import Stored
from components.data.rows import Prompt
from components.errors import ConfigError
from components.models.text import train_tokenizer
from components.scoring.stored import StoredPart, load_classifier
from components.scoring.stored_config import require_classifier

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TALK: list[Any] = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one two"},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "four"},
]
ROWS = [Prompt("0", "one two three"), Prompt("1", "user: one ...", messages=TALK), Prompt("2", "four")]
RESPONSES = ["yes", "", "no no no no no no"]
SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def stored(folder: Path, kind: str = "llama", labels: int = 1, template: str | None = TEMPLATE) -> Path:
    tokenizer: Any = train_tokenizer(["one two three four yes no be kind user assistant system : "] * 3, 300)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    size: Any = SIZE | {"vocab_size": len(tokenizer), "num_labels": labels}
    models: dict[str, Any] = {
        "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**size, pad_token_id=tokenizer.eos_token_id)),
        "causal": lambda: LlamaForCausalLM(LlamaConfig(**size)),
        "bert": lambda: BertForSequenceClassification(BertConfig(**size)),
    }
    models[kind]().save_pretrained(folder)
    return folder


def part(folder: Path, max_tokens: int = 500, batch_size: int = 8) -> Stored:
    name = str(folder)
    return Stored(source="checkpoint", weight=1.0, checkpoint=name, max_tokens=max_tokens, batch_size=batch_size)


def scorer(folder: Path, mean: float = 0.0, std: float = 1.0, **options: int) -> StoredPart:
    return StoredPart(part(folder, **options), "reward_model.parts.old", mean, std, torch.device("cpu"))


@torch.no_grad()
def alone(folder: Path, ids: list[int]) -> float:
    """Transformers' own score of one sequence; its padding is the end token, which it must not take for padding."""
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
    return float(model.score(hidden))


def rendered(folder: Path, turns: list[Any]) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = "<bos>" + "".join(f"{turn['role']}: {turn['content']}<eos>" for turn in turns)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def dialogue(row: Prompt, response: str) -> list[Any]:
    asked = row.messages or [{"role": "user", "content": row.prompt}]
    return [*asked, {"role": "assistant", "content": response}]


def test_messages_and_texts_go_through_its_own_template(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    expected = [alone(folder, rendered(folder, dialogue(*pair))) for pair in zip(ROWS, RESPONSES, strict=True)]
    for size in (1, 3):
        assert scorer(folder, batch_size=size)(ROWS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    normalised = [(score - 0.5) / 2.0 for score in expected]
    assert scorer(folder, mean=0.5, std=2.0)(ROWS, RESPONSES) == pytest.approx(normalised, abs=1e-5)


def test_what_is_too_long_loses_its_oldest_turns(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    shorter = [TALK[0], TALK[3], {"role": "assistant", "content": "yes"}]
    ids = rendered(folder, shorter)
    assert scorer(folder, max_tokens=len(ids))(ROWS[1:2], ["yes"]) == pytest.approx([alone(folder, ids)], abs=1e-5)
    with pytest.raises(ConfigError, match="longer than a part of the scorer reads"):
        scorer(folder, max_tokens=8)(ROWS[:1], ["yes " * 20])


def test_a_control_token_that_a_response_spells_is_text(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    spelled = rendered(
        folder, [{"role": "user", "content": ROWS[0].prompt}, {"role": "assistant", "content": "a<eos>b"}]
    )
    assert scorer(folder)(ROWS[:1], ["a<eos>b"]) != pytest.approx([alone(folder, spelled)], abs=1e-3)
    assert scorer(folder)(ROWS[:1], ["a<eos>b"]) != pytest.approx(scorer(folder)(ROWS[:1], ["ab"]), abs=1e-3)


def test_an_encoder_without_a_template_reads_a_pair(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = stored(tmp_path, "bert", template=None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [
            float(model(torch.tensor([tokenizer(row.prompt, response)["input_ids"]])).logits)
            for row, response in zip(ROWS, RESPONSES, strict=True)
        ]
    assert scorer(folder)(ROWS, RESPONSES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "labels", "found"),
    [("llama", 2, "LlamaForSequenceClassification with 2 outputs"), ("causal", 1, "LlamaForCausalLM")],
)
def test_what_gives_no_score_is_refused_by_name(tmp_path: Path, kind: str, labels: int, found: str) -> None:
    folder = stored(tmp_path, kind, labels)
    for refuse in (require_classifier, load_classifier):
        with pytest.raises(ConfigError, match="a stored scorer cannot be used") as caught:
            refuse(part(folder), "judge.parts.old")
        assert caught.value.found == found and caught.value.where == f"judge.parts.old.checkpoint: {folder}"


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a stored scorer cannot be used"):
        load_classifier(part(tmp_path / "nothing"), "judge.parts.old")
