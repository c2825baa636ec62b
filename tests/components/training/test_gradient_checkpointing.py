"""Activations computed again give the gradients of those that are kept, in optimiser steps and nowhere else."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.config import LanguageModel, Params
from components.config.models import Adapter
from components.core.losses import bradley_terry_loss
from components.engines.generation import generate
from components.errors import ConfigError
from components.models.adapters import new_adapter_policy
from components.models.checkpoint import from_pretrained
from components.models.holding import use_gradient_checkpointing
from components.models.loading import load_policy, load_scalar_model, new_scalar_model, save_policy
from components.models.text import Codec
from components.passes.forward import response_logprobs, sequence_scores
from components.passes.sequences import Sequences
from components.training.step import Contribution, OptimizerStep

Make = Callable[[LanguageModel | None], nn.Module]


@pytest.fixture
def recomputing(tiny_params: Callable[..., Params]) -> LanguageModel:
    return tiny_params(language_model={"gradient_checkpointing": True}).language_model


def sft(model: Any, part: Sequences) -> Tensor:
    return -response_logprobs(model, part, 1.0).sum()


def reward_model(model: Any, part: Sequences) -> Tensor:
    chosen, rejected = sequence_scores(model, part).chunk(2)
    return bradley_terry_loss(chosen, rejected).sum()


def ppo(model: Any, part: Sequences) -> Tensor:
    output = model(part, 0.7)
    objective: Tensor = output.logprobs.sum() + 0.5 * output.values.square().sum() - 0.1 * output.entropy.sum()
    return objective


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if isinstance(module, transformers.modeling_layers.GradientCheckpointingLayer)
    ]


def step_on(model: nn.Module, loss: Callable[[Any, Sequences], Tensor], sequences: Sequences) -> dict[str, Tensor]:
    """The weights after one step of plain descent by the gradient, in two microbatches."""
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    take = OptimizerStep(accelerator, prepared, optimizer, 1e9, {"norm": model}, "sft", "rows")
    take(
        torch.arange(4),
        sequences.mask.sum(dim=1),
        2,
        lambda rows: Contribution(loss(prepared, sequences.rows(rows)), {"loss": torch.zeros(())}),
        where="here",
    )
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("mode", ["as loaded", "eval", "train"])  # alignment's models, and those of `fit`
@pytest.mark.parametrize("what", ["sft", "reward_model", "ppo"])
def test_a_step_is_the_same_to_the_bit(
    stored_policy: Path,
    stored_scalar_model: Path,
    sequences: Sequences,
    recomputing: LanguageModel,
    what: str,
    mode: str,
) -> None:
    def policy(config: LanguageModel | None) -> nn.Module:
        model: nn.Module = load_policy(stored_policy, config, trained=True)
        return model

    kinds: dict[str, tuple[Make, Callable[[Any, Sequences], Tensor]]] = {
        "sft": (policy, sft),
        "reward_model": (lambda config: new_scalar_model(stored_policy, 1, config), reward_model),
        "ppo": (
            lambda config: ActorCritic(policy(config), load_scalar_model(stored_scalar_model, config, trained=True)),
            ppo,
        ),
    }
    make, loss = kinds[what]
    kept, again = make(None), make(recomputing)
    modes = [module.training for module in (again if mode == "as loaded" else getattr(again, mode)()).modules()]
    before = {name: weight.clone() for name, weight in again.named_parameters()}
    passes = {id(kept): 0, id(again): 0}
    for model in (kept, again):
        if mode != "as loaded":
            getattr(model, mode)()
        for layer in layers_of(model):
            inner = next(iter(layer.children()))

            def count(*_: Any, model: nn.Module = model) -> None:
                passes[id(model)] += 1

            inner.register_forward_hook(count)
    expected, found = step_on(kept, loss, sequences), step_on(again, loss, sequences)
    assert passes[id(kept)] > 0 and passes[id(again)] == 2 * passes[id(kept)]  # each layer once more
    assert [module.training for module in again.modules()] == modes
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(found[name], before[name]) for name in before)


def test_adapters_on_one_base_recompute_too_each_by_its_own(
    stored_policy: Path, sequences: Sequences, recomputing: LanguageModel, word_codec: Codec, tmp_path: Path
) -> None:
    """The base is no part of the models that are trained, and is shared: policy and value model in one step."""
    from transformers import AutoModelForCausalLM

    adapter = Adapter(kind="lora", rank=3, alpha=5, target_modules="all-linear")
    keeping = recomputing.model_copy(update={"checkpoint": str(stored_policy), "adapter": adapter})
    keeping = keeping.model_copy(update={"gradient_checkpointing": False})
    again = keeping.model_copy(update={"gradient_checkpointing": True})
    save_policy(
        new_adapter_policy(from_pretrained(AutoModelForCausalLM, stored_policy), keeping, 1), word_codec, tmp_path
    )
    gc.collect()
    steps, calls = [], []
    for config in (keeping, again):
        policy = load_policy(tmp_path, config, trained=True)
        model = ActorCritic(policy, new_scalar_model(tmp_path, 2, config))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        seen: list[int] = []
        inner = next(iter(layers_of(policy.base.model)[0].children()))
        hook = inner.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        steps.append(step_on(model, ppo, sequences))
        hook.remove()
        calls.append(len(seen))
        assert not policy.training and not model.value_model.classifier.training  # type: ignore[union-attr]
    assert calls[1] == 2 * calls[0] > 0
    for name, weight in steps[0].items():
        torch.testing.assert_close(steps[1][name], weight, rtol=1e-5, atol=1e-5)


def test_outside_of_steps_nothing_is_computed_again(
    stored_policy: Path, sequences: Sequences, word_codec: Codec, recomputing: LanguageModel
) -> None:
    """Sampling keeps its cache, and is what it is without."""
    kept, again = load_policy(stored_policy, trained=True), load_policy(stored_policy, recomputing, trained=True)
    uniforms = torch.full((2, 3), 0.4, dtype=torch.float64)
    answers = [
        generate(policy, word_codec, [[5, 6], [7]], uniforms, temperature=1.0, batch_size=2).responses()
        for policy in (kept, again)
    ]
    assert answers[0] == answers[1]
    assert again(input_ids=sequences.tokens, use_cache=True).past_key_values is not None
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    next(iter(layers_of(again)[0].children())).register_forward_hook(count)
    response_logprobs(again, sequences, 1.0).sum().backward()
    assert calls == 1


def test_frozen_models_keep_nothing_and_are_left_alone(stored_policy: Path, recomputing: LanguageModel) -> None:
    frozen = load_policy(stored_policy, recomputing).train()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in frozen.modules())


def test_the_repetition_runs_within_the_context_that_is_given(stored_policy: Path, sequences: Sequences) -> None:
    """What is switched when the forward pass is made is switched so again in the backward pass."""
    entered: list[str] = []

    @contextmanager
    def told(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    policy = load_policy(stored_policy, trained=True)
    use_gradient_checkpointing(policy, lambda: (nullcontext(), told("again")))
    policy.train()
    loss = response_logprobs(policy, sequences, 1.0).sum()
    assert entered == []
    loss.backward()
    assert entered == ["again"] * len(layers_of(policy))


def test_an_architecture_without_it_is_refused(word_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(word_policy), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError) as caught:
        use_gradient_checkpointing(word_policy)
    assert caught.value.where == "language_model.gradient_checkpointing"
    assert "LlamaForCausalLM" in caught.value.found
