"""One optimiser step on a single weight, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.errors import TrainingError
from components.training.accelerator import start_accelerator
from components.training.step import Contribution, OptimizerStep

NUMBERS = torch.tensor([1.0, 2.0, 3.0, 10.0, 5.0])
LENGTHS = torch.tensor([4, 1, 3, 2, 9])


class Weight(nn.Module):
    """The loss of an example is its number times the weight, which starts at 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))


@pytest.fixture
def step() -> Callable[..., tuple[Weight, OptimizerStep]]:
    """A weight and its step by gradient descent at rate 1; `numbers` is what the step's losses are made of."""

    def make(clip: float = 1e6, names: list[str] | None = None) -> tuple[Weight, OptimizerStep]:
        accelerator: Accelerator = start_accelerator()
        module = Weight()
        model, optimizer = accelerator.prepare(module, torch.optim.SGD(module.parameters(), lr=1.0))
        return module, OptimizerStep(accelerator, model, optimizer, clip, {"norm": model}, "ppo", "rollouts", names)

    return make


def contribution_of(module: Weight, numbers: Tensor, seen: list[list[int]]) -> Callable[[Tensor], Contribution]:
    def contribution(rows: Tensor) -> Contribution:
        seen.append(rows.tolist())
        losses = module.weight * numbers[rows]
        sums = {"loss": losses.detach().sum(), "count": torch.tensor(float(len(rows)))}
        return Contribution(losses.sum() / 4, sums, losses.detach(), {"most": losses.detach().max()})

    return contribution


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_parts_of_a_step_add_up_to_it(step: Callable[..., tuple[Weight, OptimizerStep]], size: int) -> None:
    """Rows 0, 1, 2 and 3: a gradient of (1 + 2 + 3 + 10) / 4 = 4, and losses of 2 times the numbers."""
    module, take_step = step()
    contribution = contribution_of(module, NUMBERS, [])
    figures = take_step(torch.tensor([3, 0, 2, 1]), LENGTHS, size, contribution, where="here", mean_over=4)
    assert float(module.weight.detach()) == 2.0 - 4.0
    assert figures == {"loss": 32.0 / 4, "count": 1.0, "norm": 4.0, "most": 20.0}
    figures = take_step(torch.tensor([0]), LENGTHS, size, contribution, where="here")
    assert figures["norm"] == 0.25  # the first step's gradient is gone


def test_rows_of_like_length_go_together_the_longest_first_or_last(
    step: Callable[..., tuple[Weight, OptimizerStep]],
) -> None:
    module, take_step = step()
    seen: list[list[int]] = []
    contribution = contribution_of(module, NUMBERS, seen)
    batch = torch.tensor([0, 1, 2, 3, 4])
    take_step(batch, LENGTHS, 2, contribution, where="here")
    take_step(batch, LENGTHS, 2, contribution, where="here", longest_first=True)
    assert seen == [[1, 3], [2, 0], [4], [4, 0], [2, 3], [1]]


def test_the_gradient_of_the_whole_step_is_clipped(step: Callable[..., tuple[Weight, OptimizerStep]]) -> None:
    module, take_step = step(clip=0.5)
    figures = take_step(torch.arange(4), LENGTHS, 1, contribution_of(module, NUMBERS, []), where="here")
    assert float(module.weight.detach()) == pytest.approx(2.0 - 0.5, abs=1e-5)
    assert figures["norm"] == 4.0


@pytest.mark.parametrize(("names", "named"), [(None, "2"), ([*"abcde"], "c")])
def test_an_objective_that_is_not_finite_names_its_rows_and_moves_nothing(
    step: Callable[..., tuple[Weight, OptimizerStep]], names: list[str] | None, named: str
) -> None:
    module, take_step = step(names=names)
    numbers = NUMBERS.clone()
    numbers[2] = torch.inf
    with pytest.raises(TrainingError) as caught:
        take_step(torch.arange(5), LENGTHS, 3, contribution_of(module, numbers, []), where="ppo, iteration 3")
    assert caught.value.where == f"ppo, iteration 3, rollouts {named}"
    assert caught.value.found == "loss inf"
    assert "ppo.learning_rate" in str(caught.value.do)
    assert float(module.weight.detach()) == 2.0


def test_finite_losses_that_overflow_together_are_all_named(
    step: Callable[..., tuple[Weight, OptimizerStep]],
) -> None:
    module, take_step = step()
    numbers = torch.full((12,), 1.5e38)  # twice that is finite, and the sum of two is not
    with pytest.raises(TrainingError) as caught:
        take_step(torch.arange(12), torch.ones(12), 12, contribution_of(module, numbers, []), where="here")
    assert caught.value.where == "here, rollouts 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"


def test_a_gradient_that_is_not_finite_names_the_batch_and_moves_nothing(
    step: Callable[..., tuple[Weight, OptimizerStep]],
) -> None:
    """The root of 0: its value is 0, its slope is not finite."""
    module, take_step = step()

    def contribution(rows: Tensor) -> Contribution:
        loss = (module.weight * 0.0).sqrt() * len(rows)
        return Contribution(loss, {"loss": loss.detach()})

    with pytest.raises(TrainingError, match="a gradient is not finite") as caught:
        take_step(torch.tensor([3, 1]), LENGTHS, 1, contribution, where="here")
    assert caught.value.where == "here, rollouts 3, 1"
    assert float(module.weight.detach()) == 2.0
