"""A stage without memory says so once, with the keys that ask for less of it, and leaves what was there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.config import Params
from components.errors import EnvironmentFault
from components.memory import is_out_of_memory, memory_faults
from components.place import Place
from components.stages import perform

ChangeParams = Callable[..., Params]
# More than any machine has: gate_proj alone would take 64 TB.
HUGE = {"scratch": {"intermediate_size": 10**12, "hidden_size": 16}}


def test_a_model_too_large_for_the_machine_is_one_error(world: Path, change_params: ChangeParams) -> None:
    params = change_params(language_model=HUGE)
    before = sorted(world.rglob("*"))
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        perform("sft", params, Place())
    assert caught.value.where == "stage sft"
    assert "allocate" in caught.value.found
    assert f"lower sft.microbatch_size (now {params.sft.microbatch_size})" in caught.value.do
    assert sorted(world.rglob("*")) == before


def real_fault() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    return caught.value


def remedies(params: Params, section: str = "ppo") -> list[str]:
    with pytest.raises(EnvironmentFault) as caught, memory_faults("alignment", section, params):
        raise real_fault()
    return caught.value.do.split("; ")


def test_the_keys_are_named_in_order_and_not_those_that_are_set(tiny_params: Callable[..., Params]) -> None:
    def positions(said: list[str], keys: list[str]) -> list[int]:
        return [next(number for number, one in enumerate(said) if key in one) for key in keys]

    keys = ["ppo.microbatch_size", "measurement.batch_size", "gradient_checkpointing", "vocabulary_chunk", "dtype"]
    said = remedies(tiny_params(language_model={"checkpoint": "data", "checkpoint_files": "data"}))
    found = positions(said, [*keys, "adapter"])
    assert found == sorted(set(found))
    thrifty = {"gradient_checkpointing": True, "vocabulary_chunk": 64, "dtype": "bfloat16"}
    said = remedies(tiny_params(language_model=thrifty, ppo={"microbatch_size": 1}))
    assert not any(key in " ".join(said) for key in [*keys[:1], *keys[2:], "adapter"])  # none adapts a scratch model
    assert "measurement.batch_size" in said[0]
    # What trains nothing has no activations to keep.
    said = remedies(tiny_params(), section="evaluation")
    assert not any(key in " ".join(said) for key in ("microbatch_size", "gradient_checkpointing"))


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_every_way_to_say_it_is_understood(fault: Exception, tiny_params: Callable[..., Params]) -> None:
    assert is_out_of_memory(fault)
    with pytest.raises(EnvironmentFault) as caught, memory_faults("sft", "sft", tiny_params()):
        raise fault
    assert caught.value.__cause__ is fault
    assert caught.value.found


def test_other_faults_keep_their_traceback(tiny_params: Callable[..., Params]) -> None:
    for fault in (RuntimeError("shapes differ"), ValueError("out of range")):
        assert not is_out_of_memory(fault)
        with pytest.raises(type(fault)) as caught, memory_faults("sft", "sft", tiny_params()):
            raise fault
        assert caught.value is fault


def test_a_stored_model_that_finds_no_memory_is_not_called_damaged(
    stored_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.models import checkpoint

    class Starving:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> None:
            torch.empty(10**15)

    monkeypatch.setattr(checkpoint, "model_class", lambda folder: Starving)
    with pytest.raises(RuntimeError, match="allocate memory"):
        checkpoint.load_model(stored_policy)
