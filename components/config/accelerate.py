"""What a stage computes with: the Accelerate config, and what torch and its companions read from the environment."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import ConfigError

logger = logging.getLogger("proximal")
_ABOUT_THE_CPU = Path("/proc/cpuinfo")
# What `accelerate config` writes, with the values that are obeyed here: plain processes on one machine. A key beside
# num_processes with another value, or one that is not here, would be read by nobody.
_OFF: tuple[Any, ...] = (None, False, "no", {}, [])
_OBEYED: dict[str, tuple[Any, ...]] = {
    "compute_environment": ("LOCAL_MACHINE",),
    "distributed_type": ("NO", "MULTI_CPU", "MULTI_GPU"),
    "mixed_precision": ("no", "bf16", "fp16", "auto"),
    "use_cpu": (True, False),
    "num_machines": (1,),
    "machine_rank": (0,),
    "gpu_ids": (None, "all"),
    "rdzv_backend": (None, "static"),
    "same_network": (None, True, False),  # says something of several machines only
    "main_training_function": (None, "main"),
    **dict.fromkeys(
        (
            *("main_process_ip", "main_process_port", "debug", "enable_cpu_affinity", "downcast_bf16"),
            *("fsdp_config", "deepspeed_config", "megatron_lm_config", "fp8_config", "parallelism_config"),
            *("mpirun_config", "dynamo_config", "ipex_config", "commands", "command_file"),
            *("tpu_env", "tpu_name", "tpu_vm", "tpu_zone", "tpu_use_sudo", "tpu_use_cluster"),
        ),
        _OFF,
    ),
}


def accelerate_config(path: Path) -> dict[str, Any]:
    """The Accelerate config file that params name; its mixed_precision may be `auto`, which is decided here.

    Raises:
        ConfigError: absent, without one of the keys read here, or with a key or value that would not be obeyed, such
            as those of FSDP, DeepSpeed, Megatron, fp8 or several machines.
    """
    try:
        content = YAML(typ="safe").load(path)
        missing = [key for key in ("num_processes", "mixed_precision", "use_cpu") if key not in content]
    except (OSError, YAMLError, TypeError) as fault:
        raise ConfigError(
            "the Accelerate config cannot be read",
            where=f"compute.accelerate_config: {path}",
            expected="a file that `accelerate config` makes, such as those in infra/accelerate/",
            found=" ".join(str(fault).split()),
        ) from fault
    if missing:
        raise ConfigError(
            "the Accelerate config lacks a key", where=str(path), expected=", ".join(missing), found="no such key"
        )
    if type(content["num_processes"]) is not int or content["num_processes"] < 1:
        raise ConfigError(
            "the Accelerate config has a wrong value",
            where=f"{path}: num_processes",
            expected="a whole number from 1 on",
            found=repr(content["num_processes"]),
        )
    _require_obeyed(path, content)
    if content["mixed_precision"] == "auto":
        content["mixed_precision"] = _precision_of_this_cpu(path, content)
    return dict(content)


def _require_obeyed(path: Path, content: dict[str, Any]) -> None:
    """Refuse what would be accepted and ignored."""
    for key, value in content.items():
        obeyed = _OBEYED.get(key, ())
        if key != "num_processes" and not any(type(value) is type(each) and value == each for each in obeyed):
            raise ConfigError(
                "the Accelerate config asks for what is not supported",
                where=f"{path}: {key}",
                expected=" or ".join(map(repr, obeyed)) if obeyed else "no such key",
                found=repr(value)[:80],
                do="plain processes on one machine, on CPUs or GPUs, work, as in infra/accelerate/; take this out",
            )
    distributed, processes, use_cpu = content.get("distributed_type"), content["num_processes"], content["use_cpu"]
    contradictions = {
        "distributed_type": (distributed == "MULTI_GPU" and use_cpu) or (distributed == "MULTI_CPU" and not use_cpu),
        "num_processes": distributed == "NO" and processes > 1,
        "mixed_precision": content["mixed_precision"] == "fp16" and use_cpu,
    }
    for key, found in contradictions.items():
        if found:
            raise ConfigError(
                "the Accelerate config contradicts itself",
                where=f"{path}: {key}",
                expected="MULTI_CPU with use_cpu true, MULTI_GPU and fp16 with false, and one process with NO",
                found=f"{key} {content[key]}, distributed_type {distributed}, use_cpu {use_cpu}",
            )


def _precision_of_this_cpu(path: Path, content: dict[str, Any]) -> str:
    """bf16 where the CPU has instructions that multiply in it, else "no", which is float32."""
    if not content["use_cpu"]:
        raise ConfigError(
            "the Accelerate config has a wrong value",
            where=f"{path}: mixed_precision",
            expected="no, bf16 or fp16, as use_cpu is false: auto is for CPUs",
            found="auto",
        )
    about = _ABOUT_THE_CPU.read_text() if _ABOUT_THE_CPU.exists() else ""
    flags = set(re.findall(r"\b(?:amx|avx512)_bf16\b", about))
    precision = "bf16" if flags else "no"
    if "RANK" not in os.environ:  # of several processes, the one that starts them says it
        found = " and ".join(sorted(flags)) or "neither avx512_bf16 nor amx_bf16"
        logger.info("%s: mixed_precision auto is %s: this CPU has %s", path, precision, found)
    return precision


def torch_environment(accelerate: dict[str, Any]) -> dict[str, str]:
    """What torch and its companions read when they are first imported, but for the number of threads."""
    return {
        "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "false"),
        # A stage says itself how far it is.
        "HF_HUB_DISABLE_PROGRESS_BARS": os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        # Waiting threads sleep. By default they spin, which takes the core away from whoever they wait for as soon as
        # the machine has other work. A short spin before that is most of what two threads gain; see infra/decisions.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
        # One instruction set on every x86 machine: without these two, sums are split differently on a CPU with other
        # vector units and the same params give other bytes. Costs little; see infra/decisions.
        "MKL_CBWR": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        # In bfloat16 oneDNN compiles a kernel for every shape, and packed batches have many: a thousand of them took
        # 0.2 GiB more than these, and more rollouts more, at the same speed; see infra/decisions.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
        # Without it cuBLAS refuses to multiply where deterministic algorithms are asked for.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "ACCELERATE_MIXED_PRECISION": str(accelerate["mixed_precision"]),
        "ACCELERATE_USE_CPU": str(accelerate["use_cpu"]).lower(),
    }
