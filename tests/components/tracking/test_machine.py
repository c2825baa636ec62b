"""What a run records of the machine that it ran on."""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from recorded_runs import id_of

from components.config import Params
from components.tracking import machine, stage_run
from components.tracking import store as tracking_store
from components.tracking.recorder import StageRun

# As the driver answers: one GPU at work, and one that cannot tell its power.
SMI = """#!/bin/sh
echo "$@" > "$(dirname "$0")/asked"
echo '0, 35, 1000, 4000, 120.50'
echo '1, 0, 0, 4000, [N/A]'
"""


def test_a_stages_run_has_the_machines_figures(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(SMI)
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with stage_run("sft", params) as run, machine.sampled(run, seconds_between=0.05):
        run.metrics({"loss": 1.0})
        deadline = time.monotonic() + 60.0
        while "system" not in run.journal.records.read_text() and time.monotonic() < deadline:  # type: ignore[attr-defined]
            sum(range(10**6))
    figures = tracking_store.client().get_run(id_of(run)).data.metrics
    assert figures["loss"] == 1.0
    assert 0.0 < figures["system/cpu_utilization_percentage"] <= 100.0
    total = psutil.virtual_memory().total / 1e6
    share = figures["system/system_memory_usage_megabytes"] / total
    assert 0.01 < share < 1.0 and 0.0 < figures["system/system_memory_usage_percentage"] < 100.0
    of_gpus = {name: value for name, value in figures.items() if "gpu" in name}
    assert of_gpus == {
        "system/gpu_0_utilization_percentage": 35.0,
        "system/gpu_0_memory_usage_megabytes": 1048.576,  # 1000 MiB
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_power_usage_watts": 120.5,
        "system/gpu_1_utilization_percentage": 0.0,
        "system/gpu_1_memory_usage_megabytes": 0.0,
        "system/gpu_1_memory_usage_percentage": 0.0,
    }


def test_every_stage_is_sampled_until_it_ends(workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[StageRun] = []

    def sampled(run: StageRun) -> AbstractContextManager[None]:
        asked.append(run)
        return machine.sampled(run)

    monkeypatch.setattr("components.tracking.runs.sampled", sampled)
    with pytest.raises(RuntimeError), stage_run("sft", params) as run:
        raise RuntimeError("out of luck")
    assert asked == [run]
    assert not [thread for thread in threading.enumerate() if thread.name == "machine"]


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {name.partition("/")[0] for name in machine.sample_of_now()} == {"system"}
    assert not [name for name in machine.sample_of_now() if "gpu" in name]
