"""The Accelerate config that params name: what is wrong with it is named, and `auto` is decided."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.config import accelerate as compute
from components.config.accelerate import accelerate_config, torch_environment
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
AUTO = ROOT / "infra/accelerate/cpu_auto.yaml"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("use_cpu: true\n", "num_processes, mixed_precision"),
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
    assert accelerate_config(written(tmp_path)) == PLAIN
    assert accelerate_config(written(tmp_path, distributed_type="MULTI_GPU", use_cpu=False, gpu_ids="all"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("infra/accelerate/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_ones_are_taken(path: Path) -> None:
    assert accelerate_config(path)["num_processes"] >= 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("distributed_type", kind) for kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA", "TP", "multi_gpu")),
        ("fsdp_config", {"fsdp_version": 2}),
        ("deepspeed_config", {"zero_stage": 3}),
        ("megatron_lm_config", {"megatron_lm_tp_degree": 2}),
        ("fp8_config", {"backend": "TE"}),
        ("parallelism_config", {"parallelism_config_tp_size": 2}),
        ("dynamo_config", {"dynamo_backend": "INDUCTOR"}),
        ("mixed_precision", "fp8"),
        ("mixed_precision", "int8"),
        ("num_machines", 2),
        ("machine_rank", 1),
        ("main_process_ip", "10.0.0.1"),
        ("main_process_port", 29500),
        ("gpu_ids", "0,1"),
        ("compute_environment", "AMAZON_SAGEMAKER"),
        ("use_cpu", "yes"),
        ("enable_cpu_affinity", True),
        ("num_procesess", 2),
        # contradictions
        ("distributed_type", "MULTI_GPU"),
        ("mixed_precision", "fp16"),
        ("use_cpu", False),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        accelerate_config(written(tmp_path, **{key: value}))
    named = "distributed_type" if key == "use_cpu" and value is False else key
    assert caught.value.where.endswith(f"accelerate.yaml: {named}")
    assert str(value) in caught.value.found


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
    caplog: pytest.LogCaptureFixture,
) -> None:
    about = tmp_path / "cpuinfo"
    if flags is not None:
        about.write_text(f"processor : 0\nflags : {flags}\n\n")
    monkeypatch.setattr(compute, "_ABOUT_THE_CPU", about)
    with caplog.at_level(logging.INFO, logger="proximal"):
        assert accelerate_config(AUTO)["mixed_precision"] == precision
    assert f"mixed_precision auto is {precision}" in caplog.text and found in caplog.text
    assert torch_environment(accelerate_config(AUTO))["ACCELERATE_MIXED_PRECISION"] == precision


def test_auto_is_for_cpus(tmp_path: Path) -> None:
    config = tmp_path / "gpu_auto.yaml"
    config.write_text(AUTO.read_text().replace("use_cpu: true", "use_cpu: false"))
    with pytest.raises(ConfigError, match="auto is for CPUs"):
        accelerate_config(config)
