from __future__ import annotations

import pytest

from components.selection.choose import CycleFigures, choose_cycle


def test_takes_the_best_judge_score_and_not_the_last_cycle() -> None:
    cycles = [CycleFigures(1, 0.4, 1.0), CycleFigures(2, 0.9, 2.5), CycleFigures(3, 0.7, 4.0)]

    decision = choose_cycle(cycles, max_kl=6.0)

    assert decision.chosen.cycle == 2
    assert decision.within_ceiling
    assert [other.cycle for other in decision.rejected] == [1, 3]
    assert "0.400 is below cycle 2's 0.900" in decision.rejected[0].reason


def test_a_cycle_above_the_ceiling_is_rejected_however_well_it_is_judged() -> None:
    cycles = [CycleFigures(1, 0.4, 1.0), CycleFigures(2, 0.5, 6.0), CycleFigures(3, 2.0, 6.01)]

    decision = choose_cycle(cycles, max_kl=6.0)

    assert decision.chosen.cycle == 2  # exactly at the ceiling is within it
    assert "KL 6.01 is above the ceiling of 6 nats" in decision.rejected[1].reason


def test_without_a_cycle_within_the_ceiling_the_nearest_is_taken_and_marked() -> None:
    cycles = [CycleFigures(1, 0.4, 9.0), CycleFigures(2, 0.1, 7.0), CycleFigures(3, 2.0, 8.0)]

    decision = choose_cycle(cycles, max_kl=6.0)

    assert decision.chosen.cycle == 2
    assert not decision.within_ceiling
    assert "promotion will refuse it" in decision.reason


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (CycleFigures(2, 0.5, 2.0), "at a higher KL (2.00)"),
        (CycleFigures(2, 0.5, 1.0), "and later"),
    ],
)
def test_ties_go_to_the_lower_kl_and_then_to_the_earlier_cycle(second: CycleFigures, reason: str) -> None:
    decision = choose_cycle([second, CycleFigures(1, 0.5, 1.0)], max_kl=6.0)

    assert decision.chosen.cycle == 1
    assert reason in decision.rejected[0].reason
