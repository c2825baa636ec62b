"""The Accelerate border: devices, processes, shards, and the settings that make a run on the CPU repeatable."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from components.config.accelerate import AccelerateConfig, Fsdp
from components.errors import EnvironmentFault
from components.training.zero import plugin_for


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
    if config.deepspeed_config is not None and "WORLD_SIZE" in os.environ:
        accelerator = Accelerator(cpu=config.use_cpu, mixed_precision=config.mixed_precision)
        accelerator.state.deepspeed_plugins = plugin_for(config.deepspeed_config, config.mixed_precision)
        return accelerator
    sharded = config.fsdp_config if "WORLD_SIZE" in os.environ else None
    plugin = _fsdp_plugin(sharded, config.mixed_precision) if sharded is not None else None
    if not config.use_cpu or plugin is None:
        return Accelerator(cpu=config.use_cpu, mixed_precision=config.mixed_precision, fsdp_plugin=plugin)
    # On CPUs Accelerate takes the plugin and forgets it: what it does for GPUs is done here in its place.
    accelerator = Accelerator(cpu=True, mixed_precision=config.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return accelerator


def _fsdp_plugin(fsdp: Fsdp, mixed_precision: str) -> FullyShardedDataParallelPlugin:
    from torch.distributed.fsdp import MixedPrecisionPolicy  # takes a while, and few need it

    # It fears for views that are changed in place, which nothing here does.
    warnings.filterwarnings("ignore", message=".*returned a view tensor")
    classes = fsdp.fsdp_transformer_layer_cls_to_wrap
    # Accelerate's own would round what a model gives, logprobs and scores, and sums of gradients to bfloat16 as well.
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return FullyShardedDataParallelPlugin(
        fsdp_version=fsdp.fsdp_version,
        reshard_after_forward=fsdp.fsdp_reshard_after_forward,
        mixed_precision_policy=policy if mixed_precision == "bf16" else None,
        auto_wrap_policy=fsdp.fsdp_auto_wrap_policy.lower(),
        transformer_cls_names_to_wrap=classes.split(",") if classes is not None else None,
        cpu_offload=fsdp.fsdp_offload_params,
        activation_checkpointing=fsdp.fsdp_activation_checkpointing,
        state_dict_type=fsdp.fsdp_state_dict_type,
        cpu_ram_efficient_loading=fsdp.fsdp_cpu_ram_efficient_loading,
    )


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
