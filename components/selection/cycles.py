"""The table of cycles: one row a cycle with what was measured on the validation prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.artifacts import read_json
from components.errors import ArtifactError

NEEDED = ("reward", "judge", "kl")


def cycle_rows(metrics: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a cycle: cycle, kl, sqrt_kl and the validation means; row 0 is the SFT policy.

    Args:
        metrics: the file of each cycle, from the first.

    Over-optimisation is drawn along the square root of the KL (Gao et al. 2022).

    Units: kl in nats per sequence.
    Raises:
        ArtifactError: a cycle's metrics are absent, corrupt or incomplete.
    """
    of_cycles = [_row(cycle, _section(path, "validation")) for cycle, path in enumerate(metrics, start=1)]
    return [_row(0, _section(metrics[0], "validation_start")), *of_cycles]


def cost(metrics: Sequence[Path]) -> dict[str, int]:
    """What these cycles took together: tokens sampled for training, and tokens trained on."""
    total: dict[str, int] = {}
    for path in metrics:
        for name, tokens in read_json(path)["cost"].items():
            total[name] = total.get(name, 0) + tokens
    return total


def _section(path: Path, name: str) -> dict[str, float]:
    content = read_json(path)
    section = content.get(name) if isinstance(content, dict) else None
    means = section if isinstance(section, dict) else {}
    missing = [key for key in NEEDED if not isinstance(means.get(key), (int, float))]
    if missing:
        raise ArtifactError(
            "the figures of a cycle are incomplete",
            where=f"{path}: {name}",
            expected="a number for each of " + ", ".join(NEEDED),
            found="none for " + ", ".join(missing),
            do="delete the folder of this cycle and run `dvc repro`",
        )
    return means


def _row(cycle: int, means: dict[str, float]) -> dict[str, Any]:
    # The sample estimate of a KL near 0 may fall below it.
    distance = {"cycle": cycle, "kl": means["kl"], "sqrt_kl": math.sqrt(max(0.0, means["kl"]))}
    return distance | {name: mean for name, mean in means.items() if name != "kl"}
