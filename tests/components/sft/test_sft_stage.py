"""The stage as DVC runs it: its loss against Hugging Face's, its files, its bytes, its refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts import read_jsonl, write_jsonl
from components.config import Params, load_params
from components.digests import digest
from components.errors import ArtifactError, ConfigError, DataError, ProximalError
from components.models.loading import load_codec, load_policy
from components.place import Place
from components.stages import perform
from components.tracking.history import search

ChangeParams = Callable[..., Params]
SOURCE = Place().clean / "demonstrations.jsonl"


@pytest.fixture
def untrained(world: Path) -> Path:
    """The world before SFT."""
    for folder in (Place().sft, Place().reward_model, Place().judge):
        shutil.rmtree(folder)
    return world


@torch.no_grad()
def plain_loss(policy: Any, prompts: list[list[int]], responses: list[list[int]]) -> float:
    """Hugging Face's own loss of each sequence alone, prompts labelled -100, averaged over all response tokens."""
    total = 0.0
    for prompt, response in zip(prompts, responses, strict=True):
        labels = torch.tensor([[-100] * len(prompt) + response])
        total += float(policy(torch.tensor([prompt + response]), labels=labels).loss) * len(response)
    return total / sum(map(len, responses))


def test_the_loss_counts_response_tokens_only_and_falls(untrained: Path, change_params: ChangeParams) -> None:
    """A step so small that the weights stay: the loss reported is that of the stored policy."""
    rows = read_jsonl(SOURCE)
    losses = []
    for learning_rate in (1e-12, 0.02):
        changes = {"learning_rate": learning_rate, "epochs": 1, "batch_size": len(rows), "microbatch_size": 5}
        perform("sft", change_params(sft=changes), Place())
        metrics = json.loads((Place().sft / "metrics.json").read_text())
        losses.append(metrics["loss"])
        codec, policy = load_codec(Place().sft / "policy"), load_policy(Place().sft / "policy")
        prompts = codec.encode_prompts([row["prompt"] for row in rows])
        responses = codec.encode_responses([row["response"] for row in rows])
        losses.append(plain_loss(policy, prompts, responses))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)  # the first loss is that of the same fresh weights
    assert losses[3] < losses[2] - 0.1
    assert metrics["demonstrations"] == len(rows) == 18
    assert metrics["response_tokens"] == pytest.approx(sum(map(len, responses)) / 18)
    assert metrics["truncated_prompts_fraction"] == sum(codec.are_too_long([row["prompt"] for row in rows])) / 18 > 0
    assert metrics["truncated_responses_fraction"] == pytest.approx(sum(r[-1] != codec.eos_id for r in responses) / 18)
    assert metrics["parameters"] == sum(weight.numel() for weight in policy.parameters())
    assert metrics["vocabulary"] == policy.config.vocab_size == len(codec.tokenizer)


def test_two_runs_write_the_same_bytes_and_another_seed_others(untrained: Path, change_params: ChangeParams) -> None:
    digests = []
    for seed in (1, 1, 2):
        perform("sft", change_params(seed=seed), Place())
        digests.append(digest(Place().sft))
        assert {path.name for path in Place().sft.iterdir()} == {"policy", "metrics.json"}
        shutil.rmtree(Place().sft)
    assert digests[0] == digests[1] != digests[2]


def test_the_policy_carries_its_text_format(world: Path) -> None:
    params = load_params(Place().params)
    codec = load_codec(Place().sft / "policy")
    assert codec.format.prompt_template == params.language_model.prompt_template
    assert codec.format.max_prompt_tokens == params.language_model.max_prompt_tokens
    assert codec.format.max_response_tokens == params.language_model.max_response_tokens


def test_training_goes_on_from_a_hugging_face_folder(untrained: Path, change_params: ChangeParams) -> None:
    """GPT-2 with the tokenizer beside it: the weights are that model's, moved a little, and the words its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from components.models.text import train_tokenizer

    train_tokenizer(["My printer counts to seven."] * 3, 290).save_pretrained("checkpoint")
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=40))
    model.save_pretrained("checkpoint")
    changes = {"learning_rate": 1e-4, "epochs": 1}
    with pytest.raises(ConfigError, match="a change in the checkpoint's folder would not be seen"):
        perform("sft", change_params(language_model={"checkpoint": "checkpoint"}, sft=changes), Place())
    perform(
        "sft",
        change_params(language_model={"checkpoint": "checkpoint", "checkpoint_files": "checkpoint"}, sft=changes),
        Place(),
    )
    trained = max(search("tags.stage = 'sft' AND attributes.status = 'FINISHED'"), key=lambda found: found.started)
    assert trained.tags["base_model"] == f"checkpoint {digest(Path('checkpoint'))}"
    policy = load_policy(Place().sft / "policy")
    assert type(policy) is GPT2LMHeadModel
    for name, weight in model.named_parameters():
        moved = float((dict(policy.named_parameters())[name] - weight).abs().max())
        assert moved < 1e-3
    assert digest(Place().sft / "policy" / "model.safetensors") != digest(Path("checkpoint/model.safetensors"))
    assert load_codec(Place().sft / "policy").encode_responses(["counts"]) == [
        load_codec_tokens("checkpoint", "counts") + [load_codec(Place().sft / "policy").eos_id]
    ]


def load_codec_tokens(folder: str, text: str) -> list[int]:
    from transformers import AutoTokenizer

    tokens: list[int] = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    return tokens


def test_bad_demonstrations_are_named_and_nothing_is_left(untrained: Path, change_params: ChangeParams) -> None:
    params = change_params()
    rows = read_jsonl(SOURCE)
    before = sorted(untrained.rglob("*"))

    def refused(message: str, error: type[ProximalError] = DataError) -> None:
        with pytest.raises(error, match=message):
            perform("sft", params, Place())
        assert sorted(untrained.rglob("*")) == before

    write_jsonl(SOURCE, rows[:3])
    refused(r"sft\.batch_size")
    SOURCE.write_text(json.dumps(rows[0]) + "\n{broken\n")
    refused(r"demonstrations\.jsonl, line 2")
    SOURCE.unlink()
    before.remove(untrained / SOURCE)
    refused(r"demonstrations\.jsonl", ArtifactError)


def test_a_checkpoint_or_template_that_cannot_be_used_is_refused_before_anything_is_written(
    untrained: Path, change_params: ChangeParams
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from components.models.text import train_tokenizer

    train_tokenizer(["My printer counts to seven."] * 3, 290).save_pretrained("checkpoint")
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=29)).save_pretrained(
        "checkpoint"
    )
    long = "word " * 40 + "{prompt}"
    for settings, key in (
        (
            {"checkpoint": "checkpoint", "checkpoint_files": "checkpoint"},
            "max_prompt_tokens, language_model.max_response_tokens",
        ),
        ({"prompt_template": long}, "language_model.max_prompt_tokens"),
    ):
        with pytest.raises(ConfigError) as caught:
            perform("sft", change_params(language_model=settings), Place())
        assert key in caught.value.where
        assert not Place().sft.exists()


def test_a_new_line_spelled_as_two_characters_is_warned_about(
    untrained: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    perform("sft", change_params(language_model={"prompt_template": "ask\n{prompt}"}), Place())
    assert "double quotes" not in caplog.text
    perform("sft", change_params(language_model={"prompt_template": r"ask\n{prompt}"}), Place())
    assert "language_model.prompt_template" in caplog.text and "double quotes" in caplog.text


def test_a_policy_that_has_learned_nothing_is_told_of_at_once(
    untrained: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    """Fresh weights draw nearly any token alike; many epochs on the same few rows do not."""
    for epochs, learning_rate, said in ((1, 1e-12, True), (60, 0.02, False)):
        caplog.clear()
        perform("sft", change_params(sft={"learning_rate": learning_rate, "epochs": epochs}), Place())
        assert ("the SFT policy looks untrained: its entropy is " in caplog.text) is said
