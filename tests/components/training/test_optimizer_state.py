"""AdamW's state goes to a file and comes back by the names of the weights, of the trained ones only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import ArtifactError
from components.training.optimizer_state import load_optimizer, optimizer_state
from components.training.schedule import ParameterGroup, make_optimizer, warmup_then


class Adapted(nn.Module):
    """A frozen base, a trained adapter on it, and a head with a learning rate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.base = nn.Linear(2, 3).requires_grad_(False)
        self.adapter = nn.Linear(2, 3, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.head(self.base(rows) + self.adapter(rows))
        return scores


TRAINED = ("adapter.weight", "head.bias", "head.weight")


def optimizer_of(model: Adapted) -> torch.optim.AdamW:
    rest = [*model.base.parameters(), *model.adapter.parameters()]
    groups = {
        "rest": ParameterGroup(rest, 0.1, warmup_then(0)),
        "head": ParameterGroup(model.head.parameters(), 0.3, warmup_then(0)),
    }
    return make_optimizer(groups, weight_decay=0.01)


def train(model: Adapted, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        model(torch.tensor([[1.0, step], [-2.0, 0.5]])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Adapted, torch.optim.Optimizer], Path]:
    def store(model: Adapted, optimizer: torch.optim.Optimizer) -> Path:
        save_file(optimizer_state(model, optimizer), tmp_path / "optimizer.safetensors")
        return tmp_path / "optimizer.safetensors"

    return store


def test_a_model_of_partly_frozen_weights_goes_on_as_if_unbroken(
    stored: Callable[[Adapted, torch.optim.Optimizer], Path],
) -> None:
    torch.manual_seed(1)
    unbroken = Adapted()
    optimizer = optimizer_of(unbroken)
    train(unbroken, optimizer, 3)
    path = stored(unbroken, optimizer)
    assert set(load_file(path)) == {f"{name}/{kind}" for name in TRAINED for kind in ("step", "exp_avg", "exp_avg_sq")}
    assert float(load_file(path)["head.bias/step"]) == 3.0

    resumed = copy.deepcopy(unbroken)
    before = copy.deepcopy(resumed.state_dict())
    optimizer_of_resumed = optimizer_of(resumed)
    load_optimizer(path, resumed, optimizer_of_resumed)
    assert all(torch.equal(weight, before[name]) for name, weight in resumed.state_dict().items())
    assert [group["lr"] for group in optimizer_of_resumed.param_groups] == [0.1, 0.3]
    train(unbroken, optimizer, 3)
    train(resumed, optimizer_of_resumed, 3)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda tensors: tensors.pop("head.bias/exp_avg"), "head.bias/exp_avg"),
        (lambda tensors: tensors.update({"base.bias/exp_avg": torch.zeros(3)}), "base.bias/exp_avg"),
        (lambda tensors: tensors.update({"head.bias/exp_avg": torch.zeros(2)}), "head.bias of shape (2,), not (1,)"),
    ],
    ids=["a name is missing", "a name too many", "another shape"],
)
def test_a_file_of_another_model_is_refused_by_name(
    stored: Callable[[Adapted, torch.optim.Optimizer], Path], damage: Callable[[dict[str, Tensor]], object], found: str
) -> None:
    model = Adapted()
    optimizer = optimizer_of(model)
    train(model, optimizer, 1)
    path = stored(model, optimizer)
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(ArtifactError) as caught:
        load_optimizer(path, model, optimizer_of(model))
    assert caught.value.where == str(path) and found in caught.value.found
