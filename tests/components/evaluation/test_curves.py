from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import write_json
from components.evaluation.curves import checks_of_cycles, standardised, training_rows


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


def test_checks_stand_side_by_side_and_another_bound_is_another_row(tmp_path: Path) -> None:
    ratio = {"name": "ratio", "what": "log-ratio", "bound": 0.1, "unit": "nats"}
    start = {"name": "reference", "what": "gap", "bound": 0.2, "unit": "nats"}
    of_cycles = [
        [ratio | {"largest": 0.01, "times": 5}, start | {"largest": 0.0, "times": 1}],
        [ratio | {"largest": 0.03, "times": 4}],
        [ratio | {"bound": 0.001, "largest": 0.0, "times": 3}],
    ]
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file, rows in zip(files, of_cycles, strict=True):
        write_json(file, rows)
    assert checks_of_cycles(files) == [
        ratio | {"largest": [0.01, 0.03, None], "times": 9},
        start | {"largest": [0.0, None, None], "times": 1},
        ratio | {"bound": 0.001, "largest": [None, None, 0.0], "times": 3},
    ]
    assert checks_of_cycles([]) == []
