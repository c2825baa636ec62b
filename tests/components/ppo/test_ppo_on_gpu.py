"""A cycle on a GPU: near the CPU's, the same bytes twice, and interrupted the same bytes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from components import paths
from components.artifacts import read_json, read_jsonl
from components.config import Params
from components.digests import digest
from components.language_model.acceleration import start_accelerator
from components.measurement import Yardsticks
from components.method import CurveRow, Cycle
from components.ppo.cycle import run_cycle

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Interruption(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def cycle(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[CurveRow]]]:
    """Runs a cycle into the folder `work` on a device in a precision; `stop_in` interrupts it in that iteration."""

    def run(params: Params, work: str, device: str, precision: str, stop_in: int | None = None) -> list[CurveRow]:
        monkeypatch.setenv("ACCELERATE_USE_CPU", str(device == "cpu").lower())
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = start_accelerator()
        assert accelerator.device.type == device

        def after(row: CurveRow) -> None:
            if row["iteration"] == stop_in:
                raise Interruption

        prompts = read_jsonl(paths.CLEAN / "prompts_train.jsonl")
        job = Cycle(1, paths.SFT, Path(work), prompts, [], after)
        run_cycle(accelerator, params, job, Yardsticks.load(accelerator.device))
        curve: list[CurveRow] = read_json(Path(work, "curve.json"))
        return curve

    yield run
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)


@needs_gpu
def test_in_float32_it_is_the_cpus_cycle(cycle: Any, tiny_params: Any) -> None:
    settings = tiny_params(ppo={"iterations_per_cycle": 2})
    expected, found = (cycle(settings, device, device, "no") for device in ("cpu", "cuda"))
    for row, other in zip(found, expected, strict=True):
        # reason: sums in another order, two iterations long
        assert row == pytest.approx(other, rel=0.02, abs=2e-3)  # reason: above


@needs_gpu
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_twice_and_interrupted_it_gives_the_same_bytes(cycle: Any, tiny_params: Any, precision: str) -> None:
    params = tiny_params()
    curve = cycle(params, "whole", "cuda", precision)
    assert cycle(params, "again", "cuda", precision) == curve
    with pytest.raises(Interruption):
        cycle(params, "resumed", "cuda", precision, stop_in=3)
    assert cycle(params, "resumed", "cuda", precision) == curve
    assert digest(Path("whole")) == digest(Path("again")) == digest(Path("resumed"))
