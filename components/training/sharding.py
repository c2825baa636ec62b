"""A model that is trained in shards (FSDP2, ZeRO-3), whole: to be stored, or sampled from.

Where every process has the whole model anyway, all of this gives that model itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from components.training.zero import whole_weight, zero_stage

Model = TypeVar("Model", bound=nn.Module)


def in_shards(accelerator: Accelerator) -> bool:
    """Whether each process keeps a part of the trained weights alone."""
    return accelerator.is_fsdp2 or zero_stage(accelerator) == 3


def placed(accelerator: Accelerator, model: Model) -> Model:
    """A model that was just loaded, on the device where it is trained.

    One that is to be sharded stays where it is: its weights are mapped from their file, and sharding reads of each, in
    turn, what this process keeps.
    """
    return model if in_shards(accelerator) else model.to(accelerator.device)


def frame_of(accelerator: Accelerator, model: Model) -> Model:
    """What a trained model is put together in: the model, or a copy without weights where it is to be sharded.

    To be called before training: sharding changes a model's class and weights in place.
    """
    if not in_shards(accelerator):
        return model
    weightless: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()  # tied ones once, so that the copy's are tied alike
    }
    return copy.deepcopy(model, weightless)


def whole(accelerator: Accelerator, trained: Model, frame: Model) -> Model:
    """A model after its training, its shards gathered by all processes; whole in the main process only.

    Args:
        frame: what `frame_of` gave before the training.
    """
    if not in_shards(accelerator):
        return trained
    _fill(accelerator, trained, frame, everywhere=False)
    accelerator.free_memory()  # it would compare the weights of all models that it prepared, and cannot
    return frame.eval()


def trained_weights(accelerator: Accelerator, model: nn.Module) -> dict[str, Tensor]:
    """What training moves, whole, in main memory of the main process; empty in others, which all have to call it."""
    weights: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        full = _full(accelerator, weight) if in_shards(accelerator) else weight.detach()
        if accelerator.is_main_process:
            weights[plain_name(name)] = full.cpu().contiguous()
    return weights


@torch.no_grad()
def put_weights(accelerator: Accelerator, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model, before it is prepared for training, what `trained_weights` took of one.

    Raises:
        KeyError, ValueError: they are of another model.
    """
    own = {plain_name(name): weight for name, weight in model.named_parameters() if weight.requires_grad}
    if unlike := own.keys() ^ weights.keys():
        raise KeyError(f"{len(unlike)} names unlike this model's, such as {min(unlike)}")
    for name, weight in own.items():
        if weight.shape != weights[name].shape:
            raise ValueError(f"{name} of shape {tuple(weights[name].shape)}, not {tuple(weight.shape)}")
        if in_shards(accelerator):
            _replace(weight, weights[name])  # mapped from its file: sharding reads what each process keeps
        else:
            weight.copy_(weights[name])


@contextmanager
def gathered(accelerator: Accelerator, model: Model, frame: Model, *, everywhere: bool) -> Iterator[Model]:
    """Within it a model amid its training, whole; every process has to come by, and after it the copy is let go.

    Args:
        frame: what `frame_of` gave before the training.
        everywhere: whole in every process, on its device and in what the model computes in; else in the main process,
            in main memory and as it is trained.
    """
    if not in_shards(accelerator):
        yield model
        return
    weightless = {name: torch.empty_like(weight, device="meta") for name, weight in frame.named_parameters()}
    _fill(accelerator, model, frame, everywhere=everywhere, to_store=not everywhere)
    try:
        yield frame.eval()
    finally:
        for name, weight in frame.named_parameters():
            _replace(weight, weightless[name])


def sampled_from(accelerator: Accelerator, trained: Any, frame: Any, *, gather: bool) -> AbstractContextManager[Any]:
    """Within it a policy amid its training, to be sampled from by any of the processes; every one has to come by.

    Args:
        trained: the policy, or a module that has it as `policy` and calls it as `of_policy`: in shards, weights are
            found only by way of what was sharded.
        frame: what `frame_of` gave of the policy before the training.
        gather: whether each process holds the whole policy meanwhile; if not, a layer is gathered when it is used.
    """
    policy = getattr(trained, "policy", trained)
    if not in_shards(accelerator):
        return nullcontext(policy)
    if gather:
        return gathered(accelerator, policy, frame, everywhere=True)
    return _in_step(accelerator, trained, InStep(accelerator, policy, getattr(trained, "of_policy", trained)))


@contextmanager
def passed_through(accelerator: Accelerator, trained: nn.Module, policy: Any) -> Iterator[Any]:
    """Within it a policy amid its training, to be asked the same by every process at once, without gradients.

    Args:
        trained: what was sharded; see `sampled_from`.
    """
    if not in_shards(accelerator):
        yield policy
        return
    inner = getattr(policy, "policy", policy)  # a guided one has it inside
    asked = InShards(accelerator, inner, getattr(trained, "of_policy", trained))
    yield asked if inner is policy else policy.around(asked)
    reshard(accelerator, trained)


def reshard(accelerator: Accelerator, trained: nn.Module) -> None:
    """Weights that no backward pass comes after may stay whole: the optimiser, and who stores them, needs shards."""
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp import FSDPModule  # takes a while, and few need it

    for module in trained.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class InShards:
    """A policy that is called by way of what was sharded."""

    needs_others = True  # at every pass, which nothing may record and replay

    def __init__(self, accelerator: Accelerator, policy: Any, call: Callable[..., Any]) -> None:
        self._accelerator, self._policy, self._call = accelerator, policy, call
        self.config, self.vocabulary_chunk = policy.config, getattr(policy, "vocabulary_chunk", None)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The policy's, each a shard; their device is where a pass takes place."""
        parameters: Iterator[nn.Parameter] = self._policy.parameters()
        return parameters

    def get_output_embeddings(self) -> Any:
        """The LM head."""
        return self._policy.get_output_embeddings()

    def __call__(self, **inputs: Any) -> Any:
        return self._call(**inputs)


class InStep(InShards):
    """A policy in shards as one process calls it; see `_in_step`.

    A layer is whole only while all processes pass through it. Their responses are of unlike lengths, so a process that
    has no more to ask goes on with passes of a single token, until none has.
    """

    def __call__(self, **inputs: Any) -> Any:
        self._at_work(1)
        return super().__call__(**inputs)

    def let_others_end(self) -> None:
        """Pass through the policy as long as another process does."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self._accelerator.device)
        inputs = {"input_ids": token, "attention_mask": torch.ones_like(token), "position_ids": token}
        with torch.no_grad(), self._accelerator.autocast():
            while self._at_work(0):
                self._call(**inputs, use_cache=False, logits_to_keep=1)

    def _at_work(self, mine: int) -> int:
        """How many processes pass through the policy now; all of them ask."""
        count: Tensor = self._accelerator.reduce(torch.tensor(mine, device=self._accelerator.device), reduction="sum")
        return int(count)


@contextmanager
def _in_step(accelerator: Accelerator, trained: nn.Module, policy: InStep) -> Iterator[InStep]:
    """After an error nobody waits: the launcher ends the other processes."""
    yield policy
    policy.let_others_end()
    reshard(accelerator, trained)


def whole_weights(model: nn.Module) -> list[Tensor]:
    """All weights, gathered where they lie in shards; every process has to call it."""
    return [weight.full_tensor() if isinstance(weight, DTensor) else weight for weight in model.parameters()]


def _fill(
    accelerator: Accelerator, model: nn.Module, frame: nn.Module, *, everywhere: bool, to_store: bool = False
) -> None:
    """Put the weights of a model in shards into its frame: in the main process, or everywhere."""
    parts = {plain_name(name): weight for name, weight in model.named_parameters()}
    precision = accelerator.state.fsdp_plugin.mixed_precision_policy if accelerator.is_fsdp2 else None
    dtype = precision.param_dtype if precision is not None and everywhere else None
    for name, weight in frame.named_parameters():
        part: Any = parts[name]
        full = _full(accelerator, part)
        if everywhere or accelerator.is_main_process:
            place = torch.device("cpu") if to_store else accelerator.device
            _replace(weight, full.to(device=place, dtype=dtype or full.dtype))
    if not to_store and (everywhere or accelerator.is_main_process):
        frame.to(accelerator.device)  # and what is no weight


def _full(accelerator: Accelerator, weight: Any) -> Tensor:
    """Of all processes' shards, which may lie in main memory."""
    if not accelerator.is_fsdp2:
        return whole_weight(weight)
    full: Tensor = weight.detach().to(accelerator.device).full_tensor()
    return full


def _replace(weight: nn.Parameter, by: Tensor) -> None:
    """In place, so that tied weights stay tied."""
    torch.utils.swap_tensors(weight, nn.Parameter(by, weight.requires_grad))  # type: ignore[no-untyped-call]


def plain_name(name: str) -> str:
    """A weight's name in the model as it was, before its layers were wrapped to be computed again."""
    return name.replace("_checkpoint_wrapped_module.", "")
