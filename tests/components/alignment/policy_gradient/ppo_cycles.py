"""Runs cycles of PPO, GRPO and RLOO in tests, and interrupts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.alignment.loop import run_cycle
from components.alignment.method import CurveRow, Cycle, Job
from components.alignment.methods import room_of
from components.artifacts import read_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.measuring.measure import FrozenModels
from components.place import Place
from components.training.accelerator import start_accelerator


class Interruption(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def cycle(world: Path) -> Callable[..., list[CurveRow]]:
    """Runs a cycle into the folder `work`; `stop_in` interrupts it in that iteration, before its checkpoint."""

    prompts = read_rows(Place().clean / "prompts_train.jsonl", Prompt)

    def run(
        params: Params,
        work: str,
        number: int = 1,
        start: Path = Path("artifacts/sft"),
        stop_in: int | None = None,
        on_iteration: Callable[[FrozenModels], None] | None = None,
    ) -> list[CurveRow]:
        accelerator = start_accelerator()
        frozen = FrozenModels.load(Place().frozen, accelerator.device)

        def after(row: CurveRow) -> None:
            if on_iteration:
                on_iteration(frozen)
            if row["iteration"] == stop_in:
                raise Interruption

        job = Cycle(number, start, Path(work), prompts, [], after)
        run_cycle(
            room_of(params.method).start, Job(accelerator, params.method, params.alignment, params.shared, job, frozen)
        )
        curve: list[CurveRow] = read_json(Path(work, "curve.json"))
        return curve

    return run
