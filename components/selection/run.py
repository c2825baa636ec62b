"""The door of the stage: read all cycles, choose one, copy its policy to where evaluation looks for it."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from components.artifacts import atomic_folder, write_json
from components.config import Selection
from components.selection.choose import CycleFigures, Decision, choose_cycle
from components.selection.cycles import cost, cycle_rows
from components.tracking import StageRun


class Inputs(NamedTuple):
    """What the choice rests on: of each cycle, from the first, its policy and its metrics."""

    policies: tuple[Path, ...]
    metrics: tuple[Path, ...]


def run(settings: Selection, inputs: Inputs, out: Path, tracked: StageRun) -> None:
    """Write policy/, selection.json (the decision) and cycles.json (what it rests on) to `out`.

    Raises:
        ArtifactError: a cycle's metrics are absent, corrupt or incomplete.
    """
    max_kl = settings.max_kl_nats_per_sequence
    rows = cycle_rows(inputs.metrics)
    decision = choose_cycle(
        [CycleFigures(row["cycle"], row["judge"], row["kl"]) for row in rows if row["cycle"]], max_kl
    )
    chosen = decision.chosen.cycle
    record = _record(decision, max_kl, judge_of_sft=rows[0]["judge"])
    record["cost"] = cost(inputs.metrics[:chosen])
    with atomic_folder(out) as folder:
        shutil.copytree(inputs.policies[chosen - 1], folder / "policy")
        write_json(folder / "selection.json", record)
        write_json(folder / "cycles.json", rows)
    tracked.metrics({f"selected/{name}": record[name] for name in ("cycle", "judge", "kl")})
    tracked.table("cycles.json", rows)
    tracked.artifact(out / "selection.json")


def _record(decision: Decision, max_kl: float, judge_of_sft: float) -> dict[str, Any]:
    return asdict(decision.chosen) | {
        "judge_of_sft": judge_of_sft,
        "max_kl_nats_per_sequence": max_kl,
        "within_ceiling": decision.within_ceiling,
        "reason": decision.reason,
        "rejected": [asdict(other) for other in decision.rejected],
    }
