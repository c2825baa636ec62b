from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation import figures

RUBRIC = {"helpful": 0.5, "harmless": 0.9, "honest": 0.7}
CYCLES: list[dict[str, Any]] = [
    {"cycle": k, "sqrt_kl": 0.9 * k, "reward": 1.0 * k, "judge": 0.8 * k - 0.1 * k * k, "gold": 0.5 + 0.1 * k} | RUBRIC
    for k in range(4)
]
for row in CYCLES:
    row["intervals"] = {
        name: {"low": row[name] - 0.1, "high": row[name] + 0.1} for name in ("reward", "judge", "gold", *RUBRIC)
    }
CURVE: list[dict[str, Any]] = [
    {
        "cycle": 1 + k // 2,
        "iteration": k + 1,
        "reward": 0.1 * k,
        "kl": 0.5 * k,
        "entropy": 1.0,
        "unknown": 7.0,
    }
    for k in range(4)
]
BINS = [{"size": 5, "mean_probability": 0.2, "frequency": 0.4}]

DRAWINGS: dict[str, Callable[[Path], None]] = {
    "over_optimisation": lambda path: figures.over_optimisation(
        path, CYCLES, chosen=2, max_kl=4.0, parts=tuple(RUBRIC)
    ),
    "training": lambda path: figures.training_curves(path, CURVE, target_kl=4.0),
    "calibration": lambda path: figures.calibration(path, {"Reward model": BINS, "Judge": BINS}, 0.95),
    "calibration of a scorer that was held against nothing": lambda path: figures.calibration(
        path, {"Reward model": [], "Judge": BINS}, 0.95
    ),
    "calibration of one comparison a bin": lambda path: figures.calibration(
        path, {"Reward model": [{"size": 1, "mean_probability": 0.2, "frequency": 1.0}]}, 0.95
    ),
    "over_optimisation, narrow": lambda path: figures.over_optimisation(path, CYCLES, 1, 100.0, narrow=True),
    "training, narrow": lambda path: figures.training_curves(path, CURVE, target_kl=None, narrow=True),
    "calibration, narrow": lambda path: figures.calibration(
        path, {"Reward model": BINS, "Judge": BINS}, 0.95, narrow=True
    ),
}


def chunks(png: bytes) -> dict[bytes, bytes]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        found[png[at + 4 : at + 8]] = png[at + 8 : at + 8 + size]
        at += size + 12
    return found


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_bytes_depend_on_the_numbers_alone(name: str, tmp_path: Path) -> None:
    for copy in ("a.png", "b.png"):
        DRAWINGS[name](tmp_path / copy)

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    held = chunks((tmp_path / "a.png").read_bytes())
    assert not {b"tEXt", b"iTXt", b"tIME"} & set(held)  # no software, no date


def size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", chunks(path.read_bytes())[b"IHDR"][:8])
    return width, height


def test_without_a_rubric_the_panel_of_gold_is_absent(tmp_path: Path) -> None:
    plain = [{name: row[name] for name in ("cycle", "sqrt_kl", "reward", "judge", "intervals")} for row in CYCLES]
    figures.over_optimisation(tmp_path / "all.png", CYCLES, 1, 9.0)
    figures.over_optimisation(tmp_path / "plain.png", plain, 1, 9.0)
    assert size(tmp_path / "plain.png")[1] < size(tmp_path / "all.png")[1]


def test_a_policy_that_never_left_sft_can_be_drawn(tmp_path: Path) -> None:
    still = [{**row, "sqrt_kl": 0.0} for row in CYCLES]
    figures.over_optimisation(tmp_path / "still.png", still, 1, 6.0)
    assert size(tmp_path / "still.png")[0] > 1000


def test_every_cycle_has_its_name_however_close_they_are() -> None:
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    axis.set_xlim(0.0, 2.0)
    crowded = [{"sqrt_kl": where} for where in (0.0, 1.0, 1.3, 1.31, 1.32)]
    assert figures._name_cycles(axis, crowded, chosen=3, letters=40) == 3
    names = {text.get_text(): text for text in axis.texts}
    assert list(names) == ["SFT", "1", "2", "3, chosen", "4"]
    assert [names[name].get_position()[1] for name in ("2", "3, chosen", "4")] == [3, 15, 27]


@pytest.mark.parametrize(("size", "wins"), [(10, 9), (3, 3)])
def test_the_bar_of_a_bin_is_the_wilson_interval(size: int, wins: int) -> None:
    z, share = 1.959964, wins / size  # the formula of Wilson 1927
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    reach = z / (1 + z * z / size) * (share * (1 - share) / size + z * z / (4 * size * size)) ** 0.5
    found = figures._of_bin({"size": size, "frequency": share}, 0.95)
    assert (found.low, found.high) == pytest.approx((centre - reach, min(1.0, centre + reach)), abs=1e-6)
