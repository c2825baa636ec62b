"""The Accelerate config that params name: what `accelerate config` writes, obeyed whole or refused by the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.config.base import Count, Section, contradiction
from components.config.cpu import bfloat16_instructions
from components.config.deepspeed import DeepSpeed
from components.errors import ConfigError

# Keys that `accelerate config` writes for what is not built here: taken where they ask for nothing.
_NOT_BUILT = {
    *("debug", "enable_cpu_affinity", "downcast_bf16", "megatron_lm_config", "fp8_config"),
    *("parallelism_config", "mpirun_config", "dynamo_config", "ipex_config", "commands", "command_file"),
    *("tpu_env", "tpu_name", "tpu_vm", "tpu_zone", "tpu_use_sudo", "tpu_use_cluster"),
}
_NOTHING: tuple[Any, ...] = (None, False, "no", {}, [])


class Fsdp(Section):
    """How FSDP2 shards weights, gradients and optimiser; the first FSDP has other keys. A stored model is whole."""

    fsdp_version: Literal[2]
    fsdp_reshard_after_forward: bool
    # Not SIZE_BASED_WRAP: Accelerate 1.15 tries it on lists of layers, which FSDP2 does not take.
    fsdp_auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "NO_WRAP"]
    fsdp_transformer_layer_cls_to_wrap: str | None = None
    fsdp_offload_params: bool = False
    fsdp_activation_checkpointing: bool = False
    fsdp_state_dict_type: Literal["FULL_STATE_DICT"] = "FULL_STATE_DICT"
    fsdp_cpu_ram_efficient_loading: bool = False

    @model_validator(mode="after")
    def classes_go_with_their_policy(self) -> Fsdp:
        policy, key = self.fsdp_auto_wrap_policy, "fsdp_transformer_layer_cls_to_wrap"
        if (classes := self.fsdp_transformer_layer_cls_to_wrap) is not None and policy == "NO_WRAP":
            raise contradiction(key, "given with TRANSFORMER_BASED_WRAP only", f"{classes} with {policy}")
        return self


class AccelerateConfig(Section):
    """An Accelerate config. Its defaults are Accelerate's: the file is that library's, not params."""

    use_cpu: bool
    mixed_precision: Literal["no", "bf16", "fp16", "auto"]
    num_processes: Count  # of all machines
    distributed_type: Literal["NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED"] | None = None
    fsdp_config: Fsdp | None = None
    deepspeed_config: DeepSpeed | None = None
    gpu_ids: str | None = None
    num_machines: Count = 1
    machine_rank: Annotated[int, Field(ge=0)] = 0
    main_process_ip: str | None = None
    main_process_port: Count | None = None
    rdzv_backend: Literal["static", "c10d"] | None = None
    same_network: bool | None = None  # true or false, the machines meet at the address of the main process
    compute_environment: Literal["LOCAL_MACHINE"] = "LOCAL_MACHINE"
    main_training_function: Literal["main"] | None = None
    _reason: str = PrivateAttr("")

    @property
    def reason(self) -> str:
        """How an `auto` was decided, in words; empty where the file decides."""
        return self._reason

    @property
    def is_sharded(self) -> bool:
        """Whether processes each keep a part of what is trained."""
        return self.distributed_type in ("FSDP", "DEEPSPEED")

    @property
    def processes_per_machine(self) -> int:
        return self.num_processes // self.num_machines

    @model_validator(mode="before")
    @classmethod
    def what_asks_for_nothing_is_taken(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        taken = {key: value for key, value in content.items() if key not in _NOT_BUILT or value not in _NOTHING}
        for key in ("fsdp_config", "deepspeed_config"):
            if taken.get(key) == {}:
                del taken[key]
        if taken.get("gpu_ids") == "all":
            del taken["gpu_ids"]
        return taken

    @model_validator(mode="after")
    def devices_and_precision_fit(self) -> AccelerateConfig:
        kind, cpu, count = self.distributed_type, self.use_cpu, self.num_processes
        if kind == ("MULTI_GPU" if cpu else "MULTI_CPU"):
            raise contradiction("distributed_type", "MULTI_CPU goes with use_cpu true, MULTI_GPU with false", kind)
        if kind == "NO" and count > 1:
            raise contradiction("num_processes", "1 with distributed_type NO", count)
        if self.is_sharded and count == 1:
            raise contradiction("num_processes", f"2 or more with distributed_type {kind}", count)
        if self.mixed_precision == "fp16" and (cpu or self.is_sharded):
            raise contradiction("mixed_precision", "no or bf16 with use_cpu true and with FSDP or DEEPSPEED", "fp16")
        if self.mixed_precision == "auto" and (not cpu or self.num_machines > 1):
            raise contradiction("mixed_precision", "no, bf16 or fp16: auto is for CPUs of one machine", "auto")
        if self.gpu_ids is not None and (cpu or len(self.gpu_ids.split(",")) < self.processes_per_machine):
            rule = f"none with use_cpu true, else one a process, {self.processes_per_machine} on a machine"
            raise contradiction("gpu_ids", rule, self.gpu_ids)
        for key, its_kind in (("fsdp_config", "FSDP"), ("deepspeed_config", "DEEPSPEED")):
            if (kind == its_kind) != (getattr(self, key) is not None):
                found = "given" if getattr(self, key) else "nothing"
                raise contradiction(key, f"given with distributed_type {its_kind}, and only then", found)
        if cpu and self.fsdp_config and self.fsdp_config.fsdp_offload_params:
            raise contradiction("fsdp_config.fsdp_offload_params", "false with use_cpu true", True)
        return self

    @model_validator(mode="after")
    def machines_fit(self) -> AccelerateConfig:
        machines = self.num_machines
        if self.num_processes % machines:
            rule = f"a divisor of num_processes, {self.num_processes}, which are those of all machines"
            raise contradiction("num_machines", rule, machines)
        if self.machine_rank >= machines:
            raise contradiction("machine_rank", f"below num_machines, {machines}", self.machine_rank)
        for key in ("main_process_ip", "main_process_port"):
            if machines == 1 and (found := getattr(self, key)) is not None:
                raise contradiction(key, "none on one machine, whose processes find a port themselves", found)
        return self


def accelerate_config(path: Path) -> AccelerateConfig:
    """The Accelerate config file that params name; its mixed_precision may be `auto`, which is decided here.

    Raises:
        ConfigError: absent, without one of the keys needed here, or with a key or value that would not be obeyed, such
            as those of Megatron or fp8.
    """
    try:
        content = YAML(typ="safe").load(path)
        if not isinstance(content, dict):
            raise TypeError(f"{type(content).__name__}, where keys and values should be")
    except (OSError, YAMLError, TypeError) as fault:
        raise ConfigError(
            "the Accelerate config cannot be read",
            where=f"compute.accelerate_config: {path}",
            expected="a file that `accelerate config` makes, such as those in infra/accelerate/",
            found=" ".join(str(fault).split()),
        ) from fault
    try:
        config = AccelerateConfig.model_validate(content)
    except ValidationError as invalid:
        raise _refusal(path, invalid.errors()) from invalid
    if config.mixed_precision != "auto":
        return config
    precision, cpu = _precision_of_this_cpu()
    config = config.model_copy(update={"mixed_precision": precision})
    config._reason = f"{path}: mixed_precision auto is {precision}: {cpu}"
    return config


def _refusal(path: Path, faults: list[Any]) -> ConfigError:
    """Every key that would not be obeyed, by its name."""
    keys, rules, found = [], [], []
    for fault in faults:
        own = [fault["ctx"]["key"]] if fault["type"] == "contradiction" else []
        keys.append(".".join(map(str, [*fault["loc"], *own])))
        missing, unknown = fault["type"] == "missing", fault["type"] == "extra_forbidden"
        rule, value = (
            (fault["ctx"]["rule"], str(fault["ctx"]["found"])) if own else (fault["msg"], repr(fault["input"]))
        )
        rules.append("this key" if missing else "no such key" if unknown else rule)
        found.append("no such key" if missing else value[:80])
    return ConfigError(
        "the Accelerate config asks for what is not done here, or contradicts itself",
        where=f"{path}: {', '.join(keys)}",
        expected="; ".join(rules),
        found="; ".join(found),
        do="mend or take out these keys; infra/accelerate/ has examples",
    )


def _precision_of_this_cpu() -> tuple[str, str]:
    """bf16 where the CPU has instructions that multiply in it, else "no", which is float32; and what it has."""
    flags = bfloat16_instructions()
    return (
        "bf16" if flags else "no",
        f"this CPU has {' and '.join(flags) or 'neither avx512_bf16 nor amx_bf16'}",
    )


def torch_environment(cpu_threads: int) -> dict[str, str]:
    """What torch and its companions read when they are first imported."""
    return {
        "OMP_NUM_THREADS": str(cpu_threads),
        "MKL_NUM_THREADS": str(cpu_threads),
        # Without it MKL adds up in another order where a matrix begins at another address, such as a weight that was
        # read from a file: a resumed step would not be the unbroken one. It pins no instruction set and costs nothing.
        "MKL_CBWR": "AUTO",
        "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "false"),
        # A stage says itself how far it is.
        "HF_HUB_DISABLE_PROGRESS_BARS": os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        # Waiting threads sleep. By default they spin, which takes the core away from whoever they wait for as soon as
        # the machine has other work. A short spin before that is most of what two threads gain; see infra/decisions.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
        # In bfloat16 oneDNN compiles a kernel for every shape, and packed batches have many: a thousand of them took
        # 0.2 GiB more than these, and more rollouts more, at the same speed; see infra/decisions.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
        # Without it cuBLAS refuses to multiply where deterministic algorithms are asked for.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
