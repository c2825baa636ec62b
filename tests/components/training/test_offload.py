"""Frozen models leave the device for the updates, and are back however these end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.config import Params
from components.config.models import Adapter
from components.models.adapters import new_adapter_policy
from components.models.checkpoint import from_pretrained
from components.training.offload import offloaded

GPU = torch.device("cuda")


class Told(nn.Linear):
    """Notes where it is sent: there is no second device to go to on a machine without a GPU."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.places: list[str] = []

    def to(self, place: Any) -> Any:  # type: ignore[override]
        self.places.append(str(place))
        return self


def test_they_go_and_come_back() -> None:
    reference, scorer, trained = Told(), Told(), Told()
    with offloaded([reference, scorer], trained, GPU, asked=True):
        assert reference.places == scorer.places == ["cpu"]
    assert reference.places == scorer.places == ["cpu", "cuda"]
    assert trained.places == []


def test_they_come_back_from_an_update_that_fails() -> None:
    reference = Told()
    with pytest.raises(ZeroDivisionError), offloaded([reference], Told(), GPU, asked=True):
        raise ZeroDivisionError
    assert reference.places == ["cpu", "cuda"]


@pytest.mark.parametrize(("device", "asked"), [(GPU, False), (torch.device("cpu"), True)])
def test_unasked_or_without_a_gpu_nothing_moves(device: torch.device, asked: bool) -> None:
    reference = Told()
    with offloaded([reference], Told(), device, asked=asked):
        pass
    assert reference.places == []


def test_what_shares_weights_with_the_trained_model_stays() -> None:
    """One base with adapters: to move it would move the policy. A function that scores is no model."""
    base, other = Told(), Told()
    view = nn.Sequential(base)
    with offloaded([view, other, len], nn.Sequential(base, nn.Linear(2, 2)), GPU, asked=True):
        assert base.places == [] and other.places == ["cpu"]


def test_a_frozen_adapter_on_the_base_that_is_trained_stays(
    stored_policy: Path, tiny_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is no part of its views, and goes wherever one of them is sent."""
    from transformers import AutoModelForCausalLM

    adapter = Adapter(kind="lora", rank=2, alpha=4, target_modules="all-linear")
    update = {"checkpoint": str(stored_policy), "adapter": adapter}
    config = tiny_params().language_model.model_copy(update=update)
    policy = new_adapter_policy(from_pretrained(AutoModelForCausalLM, stored_policy), config, 1)
    reference = copy.deepcopy(policy)
    monkeypatch.setattr(type(reference), "to", lambda *_: pytest.fail("the base was moved"))
    with offloaded([reference], policy, GPU, asked=True):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_their_memory_is_free_meanwhile() -> None:
    frozen = nn.Linear(1024, 1024).cuda()
    before, weight = torch.cuda.memory_allocated(), frozen.weight.detach().cpu()
    with offloaded([frozen], nn.Linear(1, 1), frozen.weight.device, asked=True):
        assert torch.cuda.memory_allocated() <= before - weight.nbytes
    assert frozen.weight.is_cuda and torch.equal(frozen.weight.cpu(), weight)
