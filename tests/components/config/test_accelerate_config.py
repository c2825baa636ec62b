"""The Accelerate config that params name: what is wrong with it is named, and `auto` is decided."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.config import cpu
from components.config.accelerate import accelerate_config
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
AUTO = ROOT / "infra/accelerate/cpu_auto.yaml"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("use_cpu: true\n", "mixed_precision, num_processes"),
        ("num_processes: two\nuse_cpu: true\nmixed_precision: 'no'\n", "num_processes"),
        ("num_processes: 0\nuse_cpu: true\nmixed_precision: 'no'\n", "num_processes"),
        ("", "infra/accelerate/cpu.yaml"),
        ("{", "infra/accelerate/cpu.yaml"),
    ],
)
def test_a_bad_accelerate_config_is_named(world: Path, content: str, named: str) -> None:
    Path("infra/accelerate/cpu.yaml").write_text(content)
    with pytest.raises(ConfigError, match=named):
        accelerate_config(Path("infra/accelerate/cpu.yaml"))


# What `accelerate config` writes for one machine, nothing else asked for.
PLAIN = {
    "compute_environment": "LOCAL_MACHINE",
    "debug": False,
    "distributed_type": "MULTI_CPU",
    "downcast_bf16": "no",
    "enable_cpu_affinity": False,
    "machine_rank": 0,
    "main_training_function": "main",
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 2,
    "rdzv_backend": "static",
    "same_network": True,
    "tpu_env": [],
    "tpu_use_cluster": False,
    "tpu_use_sudo": False,
    "use_cpu": True,
}


def written(folder: Path, **changes: object) -> Path:
    config = folder / "accelerate.yaml"
    YAML(typ="safe").dump(PLAIN | changes, config)
    return config


def test_what_accelerate_config_writes_for_one_machine_is_taken(tmp_path: Path) -> None:
    config = accelerate_config(written(tmp_path))
    assert (config.distributed_type, config.use_cpu, config.mixed_precision) == ("MULTI_CPU", True, "no")
    assert (config.num_processes, config.processes_per_machine, config.gpu_ids) == (2, 2, None)
    gpus = {"distributed_type": "MULTI_GPU", "use_cpu": False}
    assert accelerate_config(written(tmp_path, **gpus, gpu_ids="all")).gpu_ids is None
    assert accelerate_config(written(tmp_path, **gpus, gpu_ids="1,3")).gpu_ids == "1,3"


def test_several_machines_share_the_processes(tmp_path: Path) -> None:
    places = {"main_process_ip": "10.0.0.1", "main_process_port": 29500, "rdzv_backend": "c10d", "same_network": False}
    config = accelerate_config(written(tmp_path, num_processes=8, num_machines=2, machine_rank=1, **places))
    assert (config.processes_per_machine, config.machine_rank) == (4, 1)
    assert (config.main_process_ip, config.main_process_port, config.rdzv_backend) == ("10.0.0.1", 29500, "c10d")


# What `accelerate config` asks for FSDP2.
SHARDS = {
    "fsdp_version": 2,
    "fsdp_reshard_after_forward": True,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
    "fsdp_offload_params": False,
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_activation_checkpointing": True,
}


def test_what_accelerate_config_writes_for_fsdp_is_taken(tmp_path: Path) -> None:
    read = accelerate_config(written(tmp_path, distributed_type="FSDP", fsdp_config=SHARDS))
    assert read.fsdp_config is not None and read.fsdp_config.model_dump() == SHARDS


@pytest.mark.parametrize("path", sorted(ROOT.glob("infra/accelerate/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_ones_are_taken(path: Path) -> None:
    assert accelerate_config(path).num_processes >= 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("distributed_type", kind) for kind in ("MEGATRON_LM", "XLA", "TP", "multi_gpu")),
        ("fsdp_config", {"fsdp_version": 2}),
        ("deepspeed_config", {"zero_stage": 3}),
        ("megatron_lm_config", {"megatron_lm_tp_degree": 2}),
        ("fp8_config", {"backend": "TE"}),
        ("parallelism_config", {"parallelism_config_tp_size": 2}),
        ("dynamo_config", {"dynamo_backend": "INDUCTOR"}),
        ("mixed_precision", "fp8"),
        ("mixed_precision", "int8"),
        ("rdzv_backend", "etcd"),
        ("compute_environment", "AMAZON_SAGEMAKER"),
        ("use_cpu", "yes"),
        ("enable_cpu_affinity", True),
        ("num_procesess", 2),
        # contradictions
        ("distributed_type", "NO"),
        ("distributed_type", "FSDP"),
        ("distributed_type", "DEEPSPEED"),
        ("distributed_type", "MULTI_GPU"),
        ("mixed_precision", "fp16"),
        ("use_cpu", False),
        ("gpu_ids", "0,1"),  # use_cpu is true
        ("num_machines", 3),  # of two processes
        ("machine_rank", 1),
        ("main_process_ip", "10.0.0.1"),
        ("main_process_port", 29500),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        accelerate_config(written(tmp_path, **{key: value}))
    named = {("use_cpu", False): "distributed_type", ("distributed_type", "NO"): "num_processes"}
    named |= {("distributed_type", "FSDP"): "fsdp_config", ("distributed_type", "DEEPSPEED"): "deepspeed_config"}
    told = named.get((key, value), key) if isinstance(value, str | bool) else key
    assert caught.value.where.startswith(f"{tmp_path}/accelerate.yaml: {told}")
    if told == key:
        assert str(value) in caught.value.found or key in ("fsdp_config", "deepspeed_config")


@pytest.mark.parametrize(
    "changes",
    [
        {"fsdp_version": 1},
        {"fsdp_sharding_strategy": "FULL_SHARD"},  # as the next three, of the first FSDP
        {"fsdp_backward_prefetch": "BACKWARD_PRE"},
        {"fsdp_use_orig_params": True},
        {"fsdp_forward_prefetch": True},
        {"fsdp_state_dict_type": "SHARDED_STATE_DICT"},
        {"fsdp_offload_params": True},  # use_cpu is true
        {"fsdp_auto_wrap_policy": "SIZE_BASED_WRAP"},
        {"fsdp_min_num_params": 1000},
        {"fsdp_auto_wrap_policy": "NO_WRAP", "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
        {"fsdp_reshard_after_forward": "FULL_SHARD"},
    ],
    ids=str,
)
def test_what_fsdp2_would_ignore_is_refused_by_name(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        accelerate_config(written(tmp_path, distributed_type="FSDP", fsdp_config=SHARDS | changes))
    assert caught.value.where.endswith(f"accelerate.yaml: fsdp_config.{list(changes)[-1]}")
    assert str(list(changes.values())[-1]) in caught.value.found


@pytest.mark.parametrize("changes", [{"num_processes": 1}, {"mixed_precision": "fp16", "use_cpu": False}], ids=str)
def test_what_fsdp_cannot_do_is_refused_by_name(tmp_path: Path, changes: dict[str, object]) -> None:
    config = written(tmp_path, distributed_type="FSDP", fsdp_config=SHARDS, **changes)
    with pytest.raises(ConfigError, match=next(iter(changes))):
        accelerate_config(config)


# What `accelerate config` asks for DeepSpeed on several machines.
ZERO = {
    "zero_stage": 3,
    "gradient_accumulation_steps": 1,
    "offload_optimizer_device": "none",
    "offload_param_device": "none",
    "zero3_init_flag": False,
    "zero3_save_16bit_model": False,
    "deepspeed_multinode_launcher": "standard",
}


@pytest.mark.parametrize("stage", [2, 3])
def test_what_accelerate_config_writes_for_deepspeed_is_taken(tmp_path: Path, stage: int) -> None:
    read = accelerate_config(
        written(tmp_path, distributed_type="DEEPSPEED", deepspeed_config=ZERO | {"zero_stage": stage})
    )
    assert read.deepspeed_config is not None and read.deepspeed_config.zero_stage == stage and read.is_sharded


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0},
        {"zero_stage": 1},
        {"gradient_accumulation_steps": 4},
        {"gradient_clipping": 1.0},
        {"offload_optimizer_device": "cpu"},
        {"offload_param_device": "nvme"},
        {"offload_param_nvme_path": "/nvme"},
        {"zero3_init_flag": True},
        {"zero3_save_16bit_model": True},
        {"deepspeed_config_file": "zero3.json"},
        {"deepspeed_multinode_launcher": "pdsh"},
        {"deepspeed_hostfile": "hosts"},
        {"deepspeed_moe_layer_cls_names": "MixtralSparseMoeBlock"},
    ],
    ids=str,
)
def test_what_zero_would_ignore_is_refused_by_name(tmp_path: Path, changes: dict[str, object]) -> None:
    [(key, value)] = changes.items()
    with pytest.raises(ConfigError) as caught:
        accelerate_config(written(tmp_path, distributed_type="DEEPSPEED", deepspeed_config=ZERO | changes))
    assert caught.value.where.endswith(f"accelerate.yaml: deepspeed_config.{key}")
    assert str(value) in caught.value.found


@pytest.mark.parametrize("changes", [{"num_processes": 1}, {"mixed_precision": "fp16", "use_cpu": False}], ids=str)
def test_what_deepspeed_cannot_do_is_refused_by_name(tmp_path: Path, changes: dict[str, object]) -> None:
    config = written(tmp_path, distributed_type="DEEPSPEED", deepspeed_config=ZERO, **changes)
    with pytest.raises(ConfigError, match=next(iter(changes))):
        accelerate_config(config)


@pytest.mark.parametrize(
    ("flags", "precision", "found"),
    [
        ("fpu avx512_bf16 sse", "bf16", "this CPU has avx512_bf16"),
        ("amx_bf16 amx_tile avx512_bf16", "bf16", "this CPU has amx_bf16 and avx512_bf16"),
        ("fpu avx512f avx2", "no", "this CPU has neither avx512_bf16 nor amx_bf16"),
        (None, "no", "this CPU has neither"),
    ],
)
def test_auto_is_what_the_cpu_multiplies_in(
    flags: str | None,
    precision: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    about = tmp_path / "cpuinfo"
    if flags is not None:
        about.write_text(f"processor : 0\nflags : {flags}\n\n")
    monkeypatch.setattr(cpu, "_ABOUT_THE_CPU", about)
    config = accelerate_config(AUTO)
    assert config.mixed_precision == precision
    assert f"mixed_precision auto is {precision}" in config.reason and found in config.reason


def test_auto_is_for_cpus(tmp_path: Path) -> None:
    config = tmp_path / "gpu_auto.yaml"
    config.write_text(AUTO.read_text().replace("use_cpu: true", "use_cpu: false"))
    with pytest.raises(ConfigError, match="auto is for CPUs"):
        accelerate_config(config)
    # On several machines each would decide for itself.
    several = written(tmp_path, num_machines=2, mixed_precision="auto")
    with pytest.raises(ConfigError, match="auto is for CPUs of one machine"):
        accelerate_config(several)
