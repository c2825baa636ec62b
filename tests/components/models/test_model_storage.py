"""Models come back from their folder as they were, without dropout, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config import LanguageModel, Params
from components.errors import ArtifactError, ConfigError
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer
from components.models.loading import (
    load_checkpoint,
    load_codec,
    load_policy,
    load_scalar_model,
    new_policy,
    new_scalar_model,
    save_policy,
    save_scalar_model,
)
from components.models.text import Codec
from components.passes.forward import response_logprobs, sequence_scores
from components.passes.sequences import Sequences


@pytest.fixture
def policy_folder(word_policy: Any, word_codec: Codec, tmp_path: Path) -> Path:
    """A stored policy of a test's own, to be broken."""
    save_policy(word_policy, word_codec, tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def config(tiny_params: Callable[..., Params]) -> LanguageModel:
    return tiny_params().language_model


def test_a_stored_policy_answers_alike(word_policy: Any, word_codec: Codec, policy_folder: Path) -> None:
    stored, weights = load_policy(policy_folder).state_dict(), word_policy.state_dict()
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    codec = load_codec(policy_folder)
    assert codec.format == word_codec.format
    assert codec.encode_prompts(["a b c d a"]) == word_codec.encode_prompts(["a b c d a"])
    assert (codec.eos_id, codec.pad_id) == (word_codec.eos_id, word_codec.pad_id)


@torch.no_grad()
def test_a_stored_scalar_model_scores_alike(stored_policy: Path, sequences: Sequences, tmp_path: Path) -> None:
    model = new_scalar_model(stored_policy, seed=1)
    raw = sequence_scores(model, sequences)
    model.classifier.config.score_mean, model.classifier.config.score_std = -0.125, 3.7000001
    save_scalar_model(model, tmp_path / "scalar")
    loaded = load_scalar_model(tmp_path / "scalar")
    assert loaded.classifier.config.score_mean == -0.125 and loaded.classifier.config.score_std == 3.7000001
    assert torch.equal(sequence_scores(loaded, sequences), sequence_scores(model, sequences))
    torch.testing.assert_close(sequence_scores(loaded, sequences), (raw + 0.125) / 3.7000001)


@torch.no_grad()
def test_dropout_is_off_even_while_training(stored_policy: Path, sequences: Sequences) -> None:
    """GPT-2's stored config asks for dropout 0.1 in its modules, Llama's for 0.1 in the attention."""
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(stored_policy)
    if stored.model_type in ("gpt2", "llama"):
        assert 0.1 in (getattr(stored, "attn_pdrop", None), getattr(stored, "attention_dropout", None))
    policy = load_policy(stored_policy)
    scalar = new_scalar_model(stored_policy, seed=1)
    assert not policy.training and not scalar.classifier.training
    quiet = response_logprobs(policy, sequences, 1.0), sequence_scores(scalar, sequences)
    policy.train()
    scalar.train()
    for _ in range(2):
        assert torch.equal(response_logprobs(policy, sequences, 1.0), quiet[0])
        assert torch.equal(sequence_scores(scalar, sequences), quiet[1])


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[-1])
    save_file(tensors, file, metadata={"format": "pt"})


def of_another_shape(file: Path) -> None:
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("damage", [cut_short, without_a_tensor, of_another_shape, Path.unlink])
@pytest.mark.parametrize("load", [load_policy, load_scalar_model])
def test_damaged_weights_are_an_error_that_names_the_folder(
    policy_folder: Path, load: Callable[[Path], Any], damage: Callable[[Path], None]
) -> None:
    if load is load_scalar_model:
        model = new_scalar_model(policy_folder, seed=1)
        shutil.rmtree(policy_folder)
        save_scalar_model(model, policy_folder)
    damage(policy_folder / "model.safetensors")
    with pytest.raises(ArtifactError) as caught:
        load(policy_folder)
    assert str(policy_folder) in caught.value.where


@pytest.mark.parametrize("content", ["", '{"architectures": ["Llama', "{}", '{"architectures": null}', "[]"])
@pytest.mark.parametrize("load", [load_policy, lambda folder: new_scalar_model(folder, seed=1)])
def test_a_damaged_config_is_an_error_that_names_the_folder(
    policy_folder: Path, load: Callable[[Path], Any], content: str
) -> None:
    (policy_folder / "config.json").write_text(content)
    with pytest.raises(ArtifactError) as caught:
        load(policy_folder)
    assert str(policy_folder) in caught.value.where


@pytest.mark.parametrize("damage", [cut_short, Path.unlink, lambda file: file.write_text("{}")])
def test_a_damaged_tokenizer_is_an_error_that_names_the_folder(
    policy_folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(policy_folder / "tokenizer.json")
    with pytest.raises(ArtifactError) as caught:
        load_codec(policy_folder)
    assert str(policy_folder) in caught.value.where


def test_an_absent_folder_is_an_error(tmp_path: Path) -> None:
    for load in (load_policy, load_scalar_model, load_codec):
        with pytest.raises(ArtifactError, match="nowhere"):
            load(tmp_path / "nowhere")


def test_a_new_policy_is_of_the_params_and_the_seed(config: LanguageModel) -> None:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    before = torch.random.get_rng_state()
    policies = [new_policy(config, 300, ids, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)  # the global stream is left alone
    first, again, other = (policy.state_dict() for policy in policies)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    shape = policies[0].config
    assert (shape.hidden_size, shape.num_hidden_layers, shape.vocab_size) == (16, 1, 300)
    assert shape.max_position_embeddings == config.max_prompt_tokens + config.max_response_tokens


def test_any_hugging_face_folder_is_a_checkpoint(policy_folder: Path, config: LanguageModel) -> None:
    here = config.model_copy(update={"checkpoint": str(policy_folder)})
    assert torch.equal(load_checkpoint(here).lm_head.weight, load_policy(policy_folder).lm_head.weight)
    assert load_checkpoint_tokenizer(here).eos_token == "<eos>"


def test_a_checkpoint_that_is_not_there_is_an_error_that_names_the_key(config: LanguageModel, tmp_path: Path) -> None:
    nowhere = config.model_copy(update={"checkpoint": str(tmp_path / "nowhere")})
    for load in (load_checkpoint, load_checkpoint_tokenizer):
        with pytest.raises(ConfigError, match=r"language_model\.checkpoint: .*nowhere"):
            load(nowhere)


def test_a_damaged_checkpoint_is_an_error_that_names_the_key(policy_folder: Path, config: LanguageModel) -> None:
    here = config.model_copy(update={"checkpoint": str(policy_folder)})
    for damage in (without_a_tensor, cut_short):
        damage(policy_folder / "model.safetensors")
        with pytest.raises(ConfigError, match=r"language_model\.checkpoint"):
            load_checkpoint(here)
    cut_short(policy_folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"language_model\.checkpoint"):
        load_checkpoint_tokenizer(here)


def test_a_checkpoint_without_an_end_token_is_refused(policy_folder: Path, config: LanguageModel) -> None:
    settings = json.loads((policy_folder / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (policy_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="end-of-sequence"):
        load_checkpoint_tokenizer(config.model_copy(update={"checkpoint": str(policy_folder)}))


def test_an_architecture_without_a_scalar_form_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="MambaForCausalLM"):
        new_scalar_model(tmp_path, seed=1)
