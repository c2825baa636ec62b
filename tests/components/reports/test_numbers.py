from __future__ import annotations

from components.reports import numbers


def test_no_minus_before_zero() -> None:
    assert numbers.unsigned(-1e-9, 2) == "0.00"
    assert numbers.signed(-1e-9, 2) == "+0.00"
    assert numbers.signed(-0.005, 3) == "−0.005"


def test_plain_values_are_shown_for_readers() -> None:
    assert [numbers.number(value) for value in (5165, 0.09155, True, None, "text", -3)] == [
        "5\u202f165", "0.092", "yes", "–", "text", "−3"
    ]  # fmt: skip
    assert numbers.percent(0.7864) == "78.6 %"
    assert numbers.exact(1.5e-4) == "0.00015"
    assert numbers.words("clip_range.low") == "Clip range · low"
