"""The Accelerate border: devices, processes, shards, and the settings that make a run on the CPU repeatable."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from components.config.accelerate import AccelerateConfig, Fsdp
from components.errors import EnvironmentFault

Model = TypeVar("Model", bound=nn.Module)


def start_accelerator(config: AccelerateConfig | None = None) -> Accelerator:
    """An Accelerator as the config says; without one, as this process began, or else as the environment says.

    Raises:
        EnvironmentFault: it does not see all processes, so that each would train on its own.
    """
    torch.use_deterministic_algorithms(True)
    # An aid to find reads of memory that nobody wrote, which costs a write of every tensor before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    accelerator = Accelerator() if config is None else _configured(config)
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise EnvironmentFault(
            "the processes do not find each other",
            where="compute.accelerate_config",
            expected=f"{os.environ['WORLD_SIZE']} processes",
            found=str(accelerator.num_processes),
            do="see that use_cpu and distributed_type fit this machine",
        )
    return accelerator


def _configured(config: AccelerateConfig) -> Accelerator:
    # A stage that does not train is one process, which has nobody to share with.
    sharded = config.fsdp_config if "WORLD_SIZE" in os.environ else None
    plugin = _fsdp_plugin(sharded) if sharded is not None else None
    if not config.use_cpu or plugin is None:
        return Accelerator(cpu=config.use_cpu, mixed_precision=config.mixed_precision, fsdp_plugin=plugin)
    # On CPUs Accelerate takes the plugin and forgets it: what it does for GPUs is done here in its place.
    accelerator = Accelerator(cpu=True, mixed_precision=config.mixed_precision)
    if config.mixed_precision != "no":
        plugin.set_mixed_precision(config.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return accelerator


def _fsdp_plugin(fsdp: Fsdp) -> FullyShardedDataParallelPlugin:
    classes = fsdp.fsdp_transformer_layer_cls_to_wrap
    return FullyShardedDataParallelPlugin(
        fsdp_version=fsdp.fsdp_version,
        reshard_after_forward=fsdp.fsdp_reshard_after_forward,
        auto_wrap_policy=fsdp.fsdp_auto_wrap_policy.lower(),
        transformer_cls_names_to_wrap=classes.split(",") if classes is not None else None,
        cpu_offload=fsdp.fsdp_offload_params,
        activation_checkpointing=fsdp.fsdp_activation_checkpointing,
        state_dict_type=fsdp.fsdp_state_dict_type,
        cpu_ram_efficient_loading=fsdp.fsdp_cpu_ram_efficient_loading,
    )


def frame_of(accelerator: Accelerator, model: Model) -> Model:
    """What `whole` puts a trained model together in: the model, or a copy without weights where it is to be sharded.

    To be called before training: sharding changes a model's class and weights in place.
    """
    if not accelerator.is_fsdp2:
        return model
    weightless: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()  # tied ones once, so that the copy's are tied alike
    }
    return copy.deepcopy(model, weightless)


def whole(accelerator: Accelerator, trained: Model, frame: Model) -> Model:
    """A trained model, its shards gathered by all processes; whole in the main process only.

    Args:
        frame: what `frame_of` gave before the training.
    """
    if not accelerator.is_fsdp2:
        return trained
    state = accelerator.get_state_dict(trained)
    accelerator.free_memory()  # it would compare the weights of all models that it prepared, and cannot
    if accelerator.is_main_process:
        for name, weight in frame.named_parameters():
            filled = nn.Parameter(state[name], weight.requires_grad)
            torch.utils.swap_tensors(weight, filled)  # type: ignore[no-untyped-call]
        frame.to(accelerator.device)
    return frame.eval()


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free for the next ones, which are of the same sizes.

    By default large blocks go back to the kernel, and every step asks it for the same pages again; see infra/decisions.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # their numbers in malloc.h
        mallopt(mmap_threshold, 32 << 20)  # the most it takes
        mallopt(trim_threshold, (1 << 31) - 1)
        mallopt(top_pad, 64 << 20)
