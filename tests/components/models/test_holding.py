"""Models are held as `language_model` says: frozen ones in half precision, trained ones not, attention by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.config import LanguageModel, Params
from components.engines.generation import generate
from components.engines.preflight import require_attention
from components.errors import ConfigError
from components.models.loading import (
    load_checkpoint,
    load_policy,
    load_scalar_model,
    load_scorer,
    new_policy,
    new_scalar_model,
    save_scorer,
)
from components.models.text import Codec
from components.passes.attention import takes_packed_sequences
from components.passes.forward import response_logprobs, response_values, sequence_scores
from components.passes.sequences import Sequences

Held = Callable[..., LanguageModel]


@pytest.fixture
def language_model(tiny_params: Callable[..., Params]) -> Held:
    """The section with changes: language_model(dtype="bfloat16")."""
    return lambda **changes: tiny_params(language_model=changes).language_model


def bytes_of(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def models(policy: Path, scalar: Path, *how: Any, **trained: bool) -> Iterator[Any]:
    yield load_policy(policy, *how, **trained)
    yield load_scalar_model(scalar, *how, **trained)


def test_frozen_models_take_half_the_bytes_and_trained_ones_all(
    stored_policy: Path, stored_scalar_model: Path, language_model: Held
) -> None:
    half = language_model(dtype="bfloat16")
    before = list(models(stored_policy, stored_scalar_model))
    frozen, trained = (
        list(models(stored_policy, stored_scalar_model, half, trained=trained)) for trained in (False, True)
    )
    heads = (0, bytes_of(before[1].classifier.score))
    for plain, model, head in zip(before, frozen, heads, strict=True):
        assert bytes_of(model) == bytes_of(plain) // 2 + head // 2  # a scalar's head stays as it is
        assert model.config._attn_implementation == plain.config._attn_implementation
    assert [bytes_of(model) for model in trained] == [bytes_of(model) for model in before]
    assert all(weight.dtype == torch.float32 for model in trained for weight in model.parameters())


def test_the_shipped_values_change_nothing(
    stored_policy: Path, stored_scalar_model: Path, language_model: Held
) -> None:
    for plain, told in zip(
        models(stored_policy, stored_scalar_model),
        models(stored_policy, stored_scalar_model, language_model()),
        strict=True,
    ):
        assert takes_packed_sequences(told)
        told_weights = told.state_dict()
        assert all(torch.equal(weight, told_weights[name]) for name, weight in plain.state_dict().items())
        assert all(told_weights[name].dtype == weight.dtype for name, weight in plain.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])  # mixed_precision "no" and "bf16"
def test_in_half_precision_a_model_answers_as_before_but_for_its_rounding(
    stored_policy: Path, stored_scalar_model: Path, language_model: Held, sequences: Sequences, autocast: bool
) -> None:
    half = language_model(dtype="bfloat16")
    tokens, mask = sequences.tokens, sequences.mask
    exact, rounded = load_policy(stored_policy), load_policy(stored_policy, half)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = (
            model(input_ids=tokens, attention_mask=mask.long()).logits.float()[mask] for model in (exact, rounded)
        )
    scale = expected.std()
    # reason: bfloat16 keeps 8 digits of two, and two layers round about twenty times
    assert float((found - expected).abs().max() / scale) < 40 * 2**-8
    assert float((found - expected).abs().max()) > 0
    scalars = load_scalar_model(stored_scalar_model), load_scalar_model(stored_scalar_model, half)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for of in (sequence_scores, response_values):
            before, after = (of(model, sequences) for model in scalars)  # type: ignore[operator]
            assert after.dtype == torch.float32
            # reason: as above
            assert float((after - before).abs().max() / before.std()) < 40 * 2**-8


@torch.no_grad()
def test_an_ensemble_is_held_like_its_members(stored_policy: Path, language_model: Held, tmp_path: Path) -> None:
    members = [new_scalar_model(stored_policy, seed=number) for number in (1, 2)]
    save_scorer(members, "mean", 0.0, tmp_path / "model")
    scorer: Any = load_scorer(tmp_path / "model", language_model(dtype="bfloat16"))
    for member in scorer.members:
        kinds = {name: weight.dtype for name, weight in member.classifier.named_parameters()}
        assert kinds.pop("score.weight") == torch.float32
        assert set(kinds.values()) == {torch.bfloat16}


@torch.no_grad()
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_attention_by_name_is_what_transformers_makes_of_it(
    stored_policy: Path, language_model: Held, sequences: Sequences, name: str
) -> None:
    told = load_policy(stored_policy, language_model(attn_implementation=name))
    assert told.config._attn_implementation == name
    assert not takes_packed_sequences(told)
    packed = load_policy(stored_policy)
    assert takes_packed_sequences(packed)
    torch.testing.assert_close(
        response_logprobs(told, sequences, 0.7), response_logprobs(packed, sequences, 0.7), rtol=0, atol=2e-5
    )
    scalar = new_scalar_model(stored_policy, 1, language_model(attn_implementation=name))
    assert scalar.config._attn_implementation == name


def test_the_name_is_not_stored_with_the_model(stored_policy: Path, language_model: Held, tmp_path: Path) -> None:
    told = load_policy(stored_policy, language_model(attn_implementation="eager"))
    told.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == (stored_policy / "config.json").read_bytes()
    assert takes_packed_sequences(load_policy(tmp_path))


@pytest.mark.parametrize("name", ["no_such_attention", "flash_attention_2"])
def test_an_attention_that_is_not_to_be_had_is_one_error(stored_policy: Path, language_model: Held, name: str) -> None:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = language_model(attn_implementation=name, checkpoint=str(stored_policy), checkpoint_files="data.dvc")
    for load in (
        lambda: load_checkpoint(config),
        lambda: load_policy(stored_policy, config),
        lambda: new_policy(config, 300, ids, seed=1),
    ):
        with pytest.raises(ConfigError) as caught:
            load()
        assert caught.value.where == "language_model.attn_implementation"
        assert name in caught.value.found
        assert "null" in caught.value.do


def test_kernels_from_a_hub_are_refused_by_the_params(language_model: Held) -> None:
    with pytest.raises(ConfigError, match="attn_implementation") as caught:
        language_model(attn_implementation="kernels-community/flash-attn2")
    assert "hub" in str(caught.value)


@pytest.mark.parametrize("name", [None, "sdpa", "eager"])
def test_half_precision_answers_with_its_own_likeliest_tokens(
    stored_policy: Path, language_model: Held, word_codec: Codec, name: str | None
) -> None:
    """Prompts of unlike lengths, through the cache, against whole passes without one."""
    policy = load_policy(stored_policy, language_model(dtype="bfloat16", attn_implementation=name))
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12]]
    uniforms = torch.full((3, 4), 0.5, dtype=torch.float64)
    found = generate(policy, word_codec, prompts, uniforms, temperature=0, batch_size=3).responses()
    for prompt, response in zip(prompts, found, strict=True):
        for place, token in enumerate(response):
            with torch.no_grad():
                logits = policy(input_ids=torch.tensor([prompt + response[:place]])).logits[0, -1].float()
            # reason: the cache and the whole pass round in another order, and the likeliest of two may change places
            assert float(logits.max() - logits[token]) < 20 * 2**-8 * float(logits.std())


def test_attention_that_fails_at_work_is_refused_before_anything_trains(
    stored_policy: Path, language_model: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kernel does that this machine cannot run."""
    from transformers import AttentionInterface

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setitem(AttentionInterface._global_mapping, "broken", broken)
    config = language_model(attn_implementation="broken")
    policy = load_policy(stored_policy, config)
    with pytest.raises(ConfigError, match="no kernel for this device") as caught:
        require_attention(policy, config, torch.device("cpu"))
    assert caught.value.where == "language_model.attn_implementation"
    sound = language_model(attn_implementation="sdpa")
    require_attention(load_policy(stored_policy, sound), sound, torch.device("cpu"))
