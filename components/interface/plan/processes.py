"""What a phase takes in one process of several: copies, or shards (FSDP2, ZeRO) and what is gathered of them."""

from __future__ import annotations

from components.config.accelerate import AccelerateConfig
from components.config.shares import SHARED_STAGES, TRAINING_STAGES
from components.interface.plan.roles import Phase

_ANSWERS = ("rollouts", "generation")
# DeepSpeed's defaults, in float32: reduce_bucket_size and stage3_max_live_parameters.
_BUCKET, _LIVE = 4 * 500_000_000, 4 * 1_000_000_000


def of_one_process(phase: Phase, config: AccelerateConfig, *, gather_for_generation: bool = True) -> Phase:
    """The phase as each process has it; as it is where one process does all.

    FSDP2 leaves each of N processes an N-th of the trained weights, gradients and moments; what computes is gathered: a
    layer and the one fetched ahead, weights outside of layers, and a layer's gradients before they are shared out.
    Frozen models are whole in every process. Data parallelism keeps its gradients once more, in buckets.
    """
    count = config.num_processes
    if phase.stage not in TRAINING_STAGES or count == 1:  # an evaluation has whole models in every process
        return phase
    if config.deepspeed_config is not None:
        return _by_zero(phase, config.deepspeed_config.zero_stage, count, gather=gather_for_generation)
    if config.fsdp_config is None:
        # of gradients and two moments a third is gradients, where gradients are there
        return phase._replace(work=phase.work + (phase.training // 3 if phase.trains else 0))
    if phase.adapters:  # the base does not move, and is whole
        return phase._replace(training=-(-phase.training // count))
    half = 2 if config.mixed_precision == "bf16" else 1
    trained = [phase.roles[role] for role in phase.trained]
    roles = {role: -(-size // count) if role in phase.trained else size for role, size in phase.roles.items()}
    fsdp = config.fsdp_config
    if phase.name in _ANSWERS and gather_for_generation:
        gathered = phase.roles.get("policy", 0) // half
    elif fsdp.fsdp_auto_wrap_policy == "NO_WRAP" or not fsdp.fsdp_reshard_after_forward:
        gathered = sum(trained) // half
    else:
        gathered = (phase.root + 2 * phase.layer) // half
    if phase.trains:
        gathered += phase.layer // half
    work = phase.work
    if half == 2:  # what autocast made of float32 weights: gathered ones are in bfloat16
        called = [phase.roles["policy"]] if phase.name in _ANSWERS else trained
        work = max(0, work - (sum(called) - len(called) * phase.root) // 2)
    return phase._replace(roles=roles, training=-(-phase.training // count), work=work + gathered)


def _by_zero(phase: Phase, stage: int, count: int, *, gather: bool) -> Phase:
    """The optimiser steps a float32 copy of the weights, shared out as gradients and moments are."""
    trained = sum(phase.roles[role] for role in phase.trained)
    gradients = phase.training // 3 if phase.trains else 0
    work = phase.work + min(gradients, _BUCKET)  # before they are shared out
    roles = phase.roles
    if stage == 3:
        roles = {role: -(-size // count) if role in phase.trained else size for role, size in roles.items()}
        work += phase.roles.get("policy", 0) if phase.name in _ANSWERS and gather else min(trained, _LIVE)
    return phase._replace(roles=roles, training=-(-(phase.training + trained) // count), work=work)


def on_one_machine(stage: str, config: AccelerateConfig) -> int:
    """How many processes of a stage share a machine's memory."""
    return config.processes_per_machine if stage in SHARED_STAGES else 1
