"""The Accelerate config that params name: what is wrong with it is named, and `auto` is decided."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from components import compute
from components.compute import accelerate_config, torch_environment
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
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
