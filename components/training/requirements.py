"""What an Accelerate config asks of this machine and of the model, asked before anything is paid for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from components.config import LanguageModel
from components.config.accelerate import AccelerateConfig
from components.errors import ConfigError
from components.models.checkpoint_tokenizer import bad_checkpoint
from components.models.loading import scratch_shape


def require_deepspeed(config: AccelerateConfig) -> None:
    """See that DeepSpeed can be imported if the config asks for it. Raises: ConfigError."""
    if config.deepspeed_config is None or importlib.util.find_spec("deepspeed") is not None:
        return
    raise ConfigError(
        "the Accelerate config asks for DeepSpeed, which is not installed",
        where="compute.accelerate_config: distributed_type DEEPSPEED",
        expected="the package deepspeed beside torch",
        found="none",
        do="`pip install -c constraints.txt deepspeed`, or take FSDP, which shards the same and needs nothing more",
    )


def require_devices(config: AccelerateConfig) -> None:
    """See that there is a GPU for every process that shall have one: Accelerate would take the CPU without a word.

    Raises:
        ConfigError: there are fewer.
    """
    needed, found = config.processes_per_machine, torch.cuda.device_count()
    if config.use_cpu or found >= needed:
        return
    seen = f"{found or 'none'} that torch {torch.__version__} sees"
    if torch.version.cuda is None and torch.version.hip is None:
        seen += ", which is built for CPUs alone"
    raise ConfigError(
        "the Accelerate config asks for GPUs that are not here",
        where=f"compute.accelerate_config: use_cpu false, num_processes {config.num_processes}",
        expected="a GPU" if needed == 1 else f"{needed} GPUs on this machine, one a process",
        found=seen,
        do="name a config that fits this machine, such as infra/accelerate/cpu_auto.yaml, or run it where the GPUs "
        "are, with a torch that is built for them (`proximal doctor` tells what it sees)",
    )


def require_layer_classes(settings: LanguageModel, config: AccelerateConfig, root: Path) -> None:
    """See that what FSDP2 is to wrap is in the model. Of the checkpoint its config alone is read.

    Args:
        root: of the project, from which a checkpoint's folder is named.
    Raises:
        ConfigError: a class that is named is not, or none is named and transformers names none for this architecture.
    """
    fsdp = config.fsdp_config
    if fsdp is None or fsdp.fsdp_auto_wrap_policy == "NO_WRAP":
        return
    model = _weightless(settings, root)
    there = {type(module).__name__ for module in model.modules()}
    usual = sorted(set(model._no_split_modules or ()) & there)
    named = fsdp.fsdp_transformer_layer_cls_to_wrap
    asked = [name.strip() for name in named.split(",")] if named is not None else usual
    absent = [name for name in asked if name not in there]
    if asked and not absent:
        return
    key = "compute.accelerate_config: fsdp_config.fsdp_transformer_layer_cls_to_wrap"
    if absent:
        raise ConfigError(
            "FSDP is to wrap layers that the model does not have",
            where=key,
            expected=f"classes of layers in {type(model).__name__}: {', '.join(usual) or 'none is usual'}",
            found=", ".join(absent),
            do="correct the name, or take the key out: the model's own layer class is wrapped then",
        )
    raise ConfigError(
        "nobody knows which layers of this model FSDP is to wrap",
        where=key,
        expected=f"the class of its layers: transformers names none for {type(model).__name__}",
        found="none",
        do="name it there, or set fsdp_auto_wrap_policy: NO_WRAP",
    )


def _weightless(settings: LanguageModel, root: Path) -> Any:
    """The policy's architecture without weights. Raises: ConfigError, there is no such checkpoint."""
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM  # untyped in transformers
    options = {"trust_remote_code": settings.trust_remote_code}
    try:
        if settings.checkpoint == "scratch":
            shape = scratch_shape(settings, settings.scratch.vocabulary_size)
        else:
            folder = root / settings.checkpoint
            shape = AutoConfig.from_pretrained(folder if folder.is_dir() else settings.checkpoint, **options)
        with torch.device("meta"):
            return auto.from_config(shape, **options)
    except (OSError, ValueError) as fault:
        raise bad_checkpoint(settings, fault) from fault
