"""The training loop on models so small that every number can be worked out beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.config import Optimisation
from components.errors import DataError, TrainingError
from components.passes.forward import response_logprobs
from components.passes.sequences import Packed, Sequences, build_sequences
from components.training.accelerator import start_accelerator
from components.training.fit import Examples, fit


@pytest.fixture
def accelerator() -> Accelerator:
    return start_accelerator()


@pytest.fixture
def settings() -> Callable[..., Optimisation]:
    plain = {
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "gradient_clip": 100.0,
        "warmup_fraction": 0.0,
        "epochs": 1,
        "batch_size": 4,
        "microbatch_size": 4,
    }
    return lambda **changes: Optimisation(**(plain | changes))


class Line(nn.Module):
    """One weight; the loss of an example is its number times the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.weight * numbers


def numbered(index: Tensor) -> Sequences:
    """Sequences of two tokens, both an example's number."""
    tokens = index[:, None]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return Sequences(tokens, mask, tokens, mask)


def numbers_of(part: Sequences | Packed) -> Tensor:
    assert isinstance(part, Sequences)  # the line is no model that takes packed ones
    return part.response_tokens[:, 0]


def fit_line(
    accelerator: Accelerator, numbers: Tensor, weights: Tensor, settings: Optimisation, **changes: Any
) -> Line:
    line = Line()
    lengths = changes.pop("lengths", torch.ones(len(numbers)))
    arguments: dict[str, Any] = {
        "examples": Examples(numbered, weights, lengths),
        "loss_sum": lambda model, part: model(numbers[numbers_of(part)]).sum(),
        "settings": settings,
        "generator": torch.Generator().manual_seed(1),
        "on_step": lambda step, loss: None,
        "label": "sft",
    }
    fit(accelerator, line, **(arguments | changes))
    return line


def test_each_step_has_the_scheduled_learning_rate(accelerator: Accelerator, settings: Any) -> None:
    """Adam moves a weight of constant gradient by exactly its learning rate, whatever the gradient."""
    line = fit_line(accelerator, torch.full((16,), 3.0), torch.ones(16), settings(warmup_fraction=0.5))
    assert float(line.weight) == pytest.approx(-0.1 * (1 / 2 + 1 + 2 / 2 + 1 / 2), abs=1e-6)


def test_the_loss_is_weighed_over_the_whole_batch(accelerator: Accelerator, settings: Any) -> None:
    """sum of losses / sum of weights; a mean of the means of microbatches would give another number."""
    numbers, weights = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([1, 1, 1, 5])
    losses: list[float] = []
    for size in (1, 2, 3, 4):

        def on_step(step: int, loss: float) -> None:
            losses.append(loss)

        line = Line()
        nn.init.ones_(line.weight)
        fit(
            accelerator,
            line,
            Examples(numbered, weights, torch.ones(4)),
            lambda model, part: model(numbers[numbers_of(part)]).sum(),
            settings=settings(microbatch_size=size),
            generator=torch.Generator().manual_seed(1),
            on_step=on_step,
            label="sft",
        )
    assert losses == pytest.approx([16 / 8] * 4)


def test_the_gradient_is_clipped_over_the_whole_batch(accelerator: Accelerator, settings: Any) -> None:
    """After clipping to 1e-8, Adam's epsilon of 1e-8 halves its step: 1e-8 / (1e-8 + 1e-8)."""
    for size in (1, 4):
        changed = settings(microbatch_size=size, gradient_clip=1e-8)
        line = fit_line(accelerator, torch.full((4,), 3.0), torch.ones(4), changed)
        assert float(line.weight) == pytest.approx(-0.1 / 2, rel=1e-3)


def test_every_epoch_sees_other_batches_and_no_example_twice(accelerator: Accelerator, settings: Any) -> None:
    seen: list[list[int]] = []

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        seen.append(numbers_of(part).tolist())
        loss: Tensor = model(torch.ones(len(seen[-1]))).sum()
        return loss

    steps: list[int] = []
    fit_line(
        accelerator,
        torch.ones(11),
        torch.ones(11),
        settings(epochs=3),
        loss_sum=loss_sum,
        on_step=lambda step, loss: steps.append(step),
    )
    assert steps == list(range(6))  # 11 examples are two batches of 4
    epochs = [sorted(seen[2 * epoch] + seen[2 * epoch + 1]) for epoch in range(3)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(batch) for batch in seen}) == 6


def test_examples_of_like_length_share_a_microbatch(accelerator: Accelerator, settings: Any) -> None:
    lengths, seen = torch.tensor([9, 1, 8, 2]), []

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        seen.append(set(numbers_of(part).tolist()))
        loss: Tensor = model(torch.ones(len(seen[-1]))).sum()
        return loss

    changed = settings(microbatch_size=2)
    fit_line(accelerator, torch.ones(4), torch.ones(4), changed, loss_sum=loss_sum, lengths=lengths)
    assert seen == [{1, 3}, {0, 2}]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_microbatch_size_changes_no_weight(
    accelerator: Accelerator, settings: Any, random_model: Any, size: int
) -> None:
    """A language model in float64, where nothing but rounding remains: Adam blows up the rounding of float32."""
    prompts = [[5], [6, 7, 8], [9, 10], [11, 12, 13], [14], [15, 16]]
    responses = [[20, 2], [21, 22, 23, 2], [2], [24, 25, 26, 27, 28], [29, 2], [30]]
    sequences = build_sequences(prompts, responses, pad_id=0)

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        assert isinstance(part, Sequences)
        return -response_logprobs(model, part, temperature=1.0).sum()

    def weights(microbatch_size: int) -> dict[str, Tensor]:
        model = random_model("gpt2", 37, seed=1).double()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        fit(
            accelerator,
            model,
            Examples(sequences.rows, sequences.response_mask.sum(dim=1), sequences.mask.sum(dim=1)),
            loss_sum,
            settings=settings(learning_rate=1e-2, epochs=3, batch_size=6, microbatch_size=microbatch_size),
            generator=torch.Generator().manual_seed(2),
            on_step=lambda step, loss: None,
            label="sft",
        )
        return dict(model.state_dict())

    whole, split = weights(6), weights(size)
    for name, weight in whole.items():
        torch.testing.assert_close(split[name], weight, rtol=0, atol=1e-7)


def test_too_few_examples_are_refused_with_the_key(accelerator: Accelerator, settings: Any) -> None:
    with pytest.raises(DataError, match=r"sft\.batch_size") as caught:
        fit_line(accelerator, torch.ones(3), torch.ones(3), settings())
    assert caught.value.found == "3" and "4" in caught.value.expected


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_examples(
    accelerator: Accelerator, settings: Any
) -> None:
    """16 examples in one batch, in microbatches of 2; example 13 is broken. Its microbatch is named, and no more."""
    numbers = torch.ones(16)
    numbers[13] = torch.nan
    line = Line()
    with pytest.raises(TrainingError) as caught:
        fit(
            accelerator,
            line,
            Examples(numbered, torch.ones(16), torch.arange(16)),
            lambda model, part: model(numbers[numbers_of(part)]).sum(),
            settings=settings(batch_size=16, microbatch_size=2, epochs=2),
            generator=torch.Generator().manual_seed(1),
            on_step=lambda step, loss: None,
            label="reward_model",
        )
    assert caught.value.where == "reward_model, epoch 1, step 1, examples 12, 13"
    assert caught.value.found == "loss nan"
    assert float(line.weight) == 0.0  # the broken gradient never reached the weights


def test_a_gradient_that_is_not_finite_stops_even_the_last_step(accelerator: Accelerator, settings: Any) -> None:
    """The loss is 0 and finite, its gradient is not: without a check, the weights stored would be NaN."""
    with pytest.raises(TrainingError, match="gradient"):
        fit_line(
            accelerator,
            torch.ones(4),
            torch.ones(4),
            settings(),
            loss_sum=lambda model, part: model(torch.zeros(len(numbers_of(part)))).abs().sqrt().sum(),
        )
