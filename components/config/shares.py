"""Whether the processes that an Accelerate config asks for can share a stage's work."""

from __future__ import annotations

import math

from components.config.accelerate import AccelerateConfig
from components.config.comparisons import BestOfN
from components.config.params import Params
from components.config.policy_gradient import PolicyGradientMethod
from components.errors import ConfigError

TRAINING_STAGES = ("sft", "reward_model", "judge", "alignment")
SHARED_STAGES = (*TRAINING_STAGES, "evaluation")  # run in all processes; the others in one


def require_shares(stage: str, params: Params, config: AccelerateConfig) -> None:
    """Every process takes part in every optimiser step, and rolls out as much as the others.

    Raises:
        ConfigError: the params do not give each of them its share, or the stage cannot train a model in shards.
    """
    processes, sharded = config.num_processes, config.is_sharded
    if stage not in TRAINING_STAGES or processes == 1:
        return
    section = params.method if stage == "alignment" else stage
    settings = getattr(params, section)
    if sharded and params.language_model.adapter is not None:
        raise ConfigError(
            "adapters cannot be trained on a base in shards",
            where=f"language_model.adapter, with compute.accelerate_config {params.compute.accelerate_config}: "
            "distributed_type",
            expected="NO, MULTI_CPU or MULTI_GPU",
            found=str(config.distributed_type),
            do="take MULTI_CPU or MULTI_GPU: each process holds the base once, and only adapters are exchanged; or set "
            "language_model.adapter: null",
        )
    if isinstance(settings, BestOfN):
        return  # nothing is trained
    if sharded and stage == "alignment":
        _require_shards_of(params, config)
    if isinstance(settings, PolicyGradientMethod):
        rollouts, minibatches = settings.rollouts_per_iteration, settings.minibatches
        shared = rollouts % processes == 0 and rollouts // minibatches >= processes
        where, found = f"{section}.rollouts_per_iteration", f"{rollouts} in {minibatches} minibatches"
        fitting = _next(rollouts, math.lcm(minibatches * processes, settings.responses_per_prompt))
        expected = f"a multiple of num_processes ({processes}), and at least as many in a minibatch"
        if sharded:
            shared = rollouts % (minibatches * processes) == 0
            expected = f"a multiple of minibatches * num_processes ({minibatches} * {processes})"
    else:
        # In shards every process needs all others at every microbatch, so that all must have equally many.
        shared = settings.batch_size >= processes and not (sharded and settings.batch_size % processes)
        where, found = f"{section}.batch_size", str(settings.batch_size)
        fitting = _next(settings.batch_size, processes)
        expected = f"at least num_processes ({processes})" if not sharded else f"a multiple of {processes} processes"
    if not shared:
        raise ConfigError(
            "the processes would not all have their share",
            where=f"{where}, with compute.accelerate_config {params.compute.accelerate_config}",
            expected=expected,
            found=found,
            do=f"set {where} to {fitting}, which fits, or take fewer processes",
        )


def _next(number: int, divisor: int) -> int:
    """The next multiple, from `number` on."""
    return -(-number // divisor) * divisor


def _require_shards_of(params: Params, config: AccelerateConfig) -> None:
    """What alignment in shards is not built for. Raises: ConfigError."""
    where = f"with compute.accelerate_config {params.compute.accelerate_config}"
    if params.method in ("q_learning", "online_dpo") and config.deepspeed_config is not None:
        raise ConfigError(
            f"{params.method} is not trained by DeepSpeed",
            where=f"method, {where}: distributed_type",
            expected="ppo, grpo, rloo, dpo or best_of_n with DEEPSPEED",
            found=params.method,
            do="take FSDP, which shards it, or another method",
        )
    if config.fsdp_config is not None and config.fsdp_config.fsdp_offload_params:
        raise ConfigError(
            "a policy whose shards lie in main memory cannot be aligned",
            where=f"stage alignment, {where}: fsdp_config.fsdp_offload_params",
            expected="false",
            found="true",
            do="set it to false; language_model.offload_frozen takes the frozen models out of the GPU",
        )
