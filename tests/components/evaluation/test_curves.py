from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import write_json
from components.evaluation.curves import standardised, training_rows


def test_curves_share_an_axis() -> None:
    cycles = [
        {"cycle": 0, "sqrt_kl": 0.0, "reward": 1.0, "judge": 7.0, "gold": 0.3},
        {"cycle": 1, "sqrt_kl": 1.5, "reward": 3.0, "judge": 7.0, "gold": 0.1},
    ]
    # Two values lie one (population) standard deviation from their mean; one that never moves stays at 0.
    first, second = standardised(cycles)
    assert first == pytest.approx({"cycle": 0, "sqrt_kl": 0.0, "reward": -1.0, "judge": 0.0, "gold": 1.0})
    assert second == pytest.approx({"cycle": 1, "sqrt_kl": 1.5, "reward": 1.0, "judge": 0.0, "gold": -1.0})


def test_training_goes_on_from_cycle_to_cycle(tmp_path: Path) -> None:
    for cycle in (1, 2):
        write_json(tmp_path / str(cycle) / "curve.json", [{"cycle": cycle, "iteration": cycle}])
    assert training_rows([tmp_path / cycle / "curve.json" for cycle in ("1", "2")]) == [
        {"cycle": 1, "iteration": 1},
        {"cycle": 2, "iteration": 2},
    ]
