"""DeepSpeed's ZeRO: an engine that shards what is trained, and steps when, and only when, training here says so.

Accelerate reads the config into its plugin. Its wrapper of the engine is not used: that one clips and steps within a
backward pass, before anybody could see whether gradients are finite.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor, nn

from components.config.deepspeed import DeepSpeed

MOMENTS = ("exp_avg", "exp_avg_sq")  # of a weight, by Adam
_ENGINES: WeakKeyDictionary[torch.optim.Optimizer, Any] = WeakKeyDictionary()  # that step an optimiser


def plugin_for(settings: DeepSpeed, mixed_precision: str) -> DeepSpeedPlugin:
    """The plugin as Accelerate builds it, and what DeepSpeed would else take defaults for."""
    plugin = DeepSpeedPlugin(
        zero_stage=settings.zero_stage,
        gradient_accumulation_steps=1,
        offload_optimizer_device="none",
        offload_param_device="none",
        zero3_init_flag=False,
        zero3_save_16bit_model=False,
    )
    plugin.deepspeed_config |= {
        "gradient_clipping": 0.0,  # `clip` does it; without this key DeepSpeed clips to 1
        "train_batch_size": torch.distributed.get_world_size(),
        "train_micro_batch_size_per_gpu": 1,  # it divides by nothing: objectives are shares of the whole
        "zero_allow_untested_optimizer": True,  # torch's own AdamW
        # As everywhere here: float32 weights, computed with in bfloat16, and gradients exchanged as they are.
        "torch_autocast": {
            "enabled": mixed_precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
    }
    return plugin


def zero_stage(accelerator: Accelerator) -> int:
    """2 or 3; 0 without DeepSpeed."""
    plugin = getattr(accelerator.state, "deepspeed_plugins", None)
    return plugin.zero_stage if isinstance(plugin, DeepSpeedPlugin) else 0


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Any, torch.optim.Optimizer]:
    """A model and its optimiser, ready for steps by `OptimizerStep`: by Accelerate, or in an engine of DeepSpeed's."""
    if not zero_stage(accelerator):
        prepared: tuple[Any, torch.optim.Optimizer] = accelerator.prepare(model, optimizer)
        return prepared
    if accelerator.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when it is imported; else it takes a GPU that is there
    import deepspeed  # takes seconds, and few have it

    config = accelerator.state.deepspeed_plugins.deepspeed_config
    if zero_stage(accelerator) == 3:  # weight after weight, where the engine would first have a whole copy
        deepspeed.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False, verbose=False)
        deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
        for buffer in model.buffers():
            buffer.data = buffer.data.to(accelerator.device)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    _ENGINES[optimizer] = engine
    return engine, optimizer


@contextmanager
def microbatch(engine: Any, *, is_last: bool) -> Iterator[None]:
    """Around the forward and backward pass of a microbatch; after the last one gradients are ready for a step."""
    engine.set_gradient_accumulation_boundary(is_boundary=is_last)
    yield


def clip(part: nn.Module, limit: float) -> float:
    """Scale the gradients of a part of the model to a norm of at most `limit`; every process has to call it.

    Returns:
        Their norm before, over all processes.
    """
    weights = [weight for weight in part.parameters() if weight.requires_grad]
    mine = [(weight, gradient) for weight in weights if (gradient := _my_gradient(weight)) is not None]
    squares = [gradient[: _count(weight)].double().square().sum() for weight, gradient in mine]
    total = sum(squares, torch.zeros((), dtype=torch.double, device=weights[0].device))
    torch.distributed.all_reduce(total)
    norm = float(total.sqrt())
    scale = limit / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_
    if scale < 1:
        for _, gradient in mine:
            gradient.mul_(scale)
    return norm


def whole_weight(weight: nn.Parameter) -> Tensor:
    """A copy of a weight whose shards all processes hold; every one has to call it."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([weight]):
        return weight.detach().clone()


def my_share(weight: Tensor) -> Tensor | None:
    """What this process holds of a weight that ZeRO-3 sharded, without padding; None of any other weight."""
    shard: Tensor | None = getattr(weight, "ds_tensor", None)
    return None if shard is None else shard.detach().flatten()[: _count(weight)]


def engine_of(optimizer: torch.optim.Optimizer) -> Any:
    """The engine that `prepare` made to step an optimiser; None without DeepSpeed."""
    return _ENGINES.get(optimizer)


def engine_state(engine: Any) -> dict[str, Tensor]:
    """The optimiser's state, whole, as `NAME OF A WEIGHT/KIND`; every process has to call it.

    Returns:
        The tensors, in main memory, in the first process; nothing in others.
    """
    states = engine.optimizer.optimizer.state
    found: dict[str, Tensor] = {}
    for name, weight in _moved(engine) if states else ():
        for kind in MOMENTS:
            mine = _held(engine.optimizer, weight)
            moment = torch.zeros(_numel(weight), device=engine.device)
            if mine is not None:
                moment[mine.of_weight] = states[mine.flat][kind][mine.of_flat]
            torch.distributed.all_reduce(moment)
            if torch.distributed.get_rank() == 0:
                found[f"{name}/{kind}"] = moment.view(getattr(weight, "ds_shape", weight.shape)).cpu()
        if torch.distributed.get_rank() == 0:
            found[f"{name}/step"] = next(iter(states.values()))["step"].to("cpu", copy=True)  # one for all
    return found


def load_engine_state(engine: Any, tensors: Mapping[str, Tensor]) -> None:
    """Fill the optimiser with what `engine_state` gave; every process has to call it, with all tensors."""
    states = engine.optimizer.optimizer.state
    step = next(tensor for name, tensor in tensors.items() if name.endswith("/step"))
    for name, weight in _moved(engine):
        if (mine := _held(engine.optimizer, weight)) is None:
            continue
        if not states[mine.flat]:  # the optimiser makes it at its first step
            moments = {kind: torch.zeros_like(mine.flat) for kind in MOMENTS}
            states[mine.flat] = {"step": step.to(mine.flat.device, copy=True), **moments}
        states[mine.flat]["step"].copy_(step)
        for kind in MOMENTS:
            states[mine.flat][kind][mine.of_flat] = tensors[f"{name}/{kind}"].flatten()[mine.of_weight].to(mine.flat)


def _moved(engine: Any) -> Iterable[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in engine.module.named_parameters() if weight.requires_grad)


class _Held(NamedTuple):
    """What of a weight this process steps: where it lies in the weight, and in the flat one that the optimiser has."""

    flat: Any
    of_flat: slice
    of_weight: slice


def _held(zero: Any, weight: Any) -> _Held | None:
    """None of a weight that other processes step."""
    if hasattr(weight, "ds_id"):
        group, start, _ = zero.grad_position[zero.get_param_id(weight)]
        before, count = torch.distributed.get_rank() * weight.ds_tensor.numel(), _count(weight)
        return _Held(zero.fp32_partitioned_groups_flat[group], *_slices(start, before, count))
    if (mapping := weight._hp_mapping) is None:
        return None
    flat, of_flat, of_weight = mapping.param_group_index, mapping.hp_fragment_address, mapping.lp_fragment_address
    slices = _slices(of_flat.start, of_weight.start, of_flat.numel)
    return _Held(zero.single_partition_of_fp32_groups[flat], *slices)


def _slices(of_flat: int, of_weight: int, count: int) -> tuple[slice, slice]:
    return slice(of_flat, of_flat + count), slice(of_weight, of_weight + count)


def _numel(weight: Any) -> int:
    return int(getattr(weight, "ds_numel", weight.numel()))


def _my_gradient(weight: nn.Parameter) -> Tensor | None:
    """What this process will step with of a weight's gradient, flat and to be changed in place; None of nothing."""
    if hasattr(weight, "ds_id"):
        from deepspeed.utils import safe_get_local_grad

        return safe_get_local_grad(weight).flatten()  # type: ignore[no-any-return]
    mapping = weight._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:
        return None  # another process steps it
    return mapping.get_lp_grad_fragment(weight._index_in_param_group).view(-1)  # type: ignore[no-any-return, attr-defined]


def _count(weight: Any) -> int:
    """How many numbers of a weight this process holds; ZeRO-3 pads the last shard."""
    if not hasattr(weight, "ds_id"):
        return int(weight.numel())
    size = int(weight.ds_tensor.numel())
    return max(0, min(size, int(weight.ds_numel) - torch.distributed.get_rank() * size))
