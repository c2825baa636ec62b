"""Wall time, shared out by hand."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from flows.profile import StageTime, shared_out
from flows.terminal import profile_table

ALONE = StageTime("sft", 0.0, 10.0, {"imports": 1.0, "updates": 6.0, "tracking": 1.0})
LONG = StageTime("judge", 10.0, 30.0, {"imports": 2.0, "updates": 16.0})
SHORT = StageTime("reward_model", 20.0, 30.0, {"imports": 2.0, "updates": 8.0})


def test_a_stage_alone_has_its_time_and_dvc_the_rest() -> None:
    assert shared_out([ALONE]) == {"sft": {"imports": 1.0, "updates": 6.0, "tracking": 1.0, "DVC": 2.0}}


def test_two_stages_at_once_count_for_half() -> None:
    rows = shared_out([LONG, SHORT])
    # Together they took 20 s. The judge was alone for 10 s, then each had half of 10 s.
    assert rows["judge"] == pytest.approx({"imports": 1.5, "updates": 12.0, "DVC": 1.5})
    assert rows["reward_model"] == pytest.approx({"imports": 1.0, "updates": 4.0, "DVC": 0.0})


def test_a_second_try_is_added() -> None:
    again = StageTime("sft", 12.0, 14.0, {"imports": 1.0})
    assert shared_out([ALONE, again])["sft"] == pytest.approx(
        {"imports": 2.0, "updates": 6.0, "tracking": 1.0, "DVC": 3.0}
    )


def test_the_table_accounts_for_the_whole_time() -> None:
    table = profile_table([ALONE, LONG, SHORT], start_s=4.0, total_s=40.0, tracking_s=2.0)
    console = Console(width=160, file=StringIO(), record=True)
    console.print(table)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "sft 6.0 1.0 1.0 2.0 10.0" in lines
    assert "judge 12.0 1.5 1.5 15.0" in lines
    assert "start: Prefect, imports 4.0" in lines
    assert "flow: MLflow 2.0 2.0" in lines
    assert "flow: Prefect, DVC's graph 4.0" in lines  # 40 - 4 - 2 - 30
    assert "all 0.0 0.0 0.0 22.0 0.0 3.5 3.0 0.0 3.5 40.0" in lines
    assert "45% of the time was neither data, models, rollouts, updates nor evaluation" in lines  # 1 - 22 / 40
