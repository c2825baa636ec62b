"""A pipeline that found nothing to do leaves no row; one that did anything, or failed, does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from recorded_runs import runs

from components.config import Params
from components.tracking import finish_pipeline_run, stage_run, start_pipeline_run
from components.tracking.runs import PARENT_VARIABLE

UNCHANGED = {"data.dvc": "unchanged", "sft": "unchanged"}


@pytest.mark.parametrize(
    ("status", "stages", "decision", "rows"),
    [
        ("FINISHED", UNCHANGED, None, 0),
        ("FINISHED", UNCHANGED | {"promotion": "ran"}, "already champion", 0),
        ("FINISHED", UNCHANGED | {"promotion": "ran"}, "already refused", 0),
        ("FINISHED", UNCHANGED | {"promotion": "ran"}, "promoted", 2),
        ("FINISHED", UNCHANGED | {"judge": "ran"}, None, 1),
        ("FAILED", UNCHANGED | {"promotion": "failed"}, None, 1),
        ("KILLED", UNCHANGED, None, 1),
    ],
)
def test_an_idle_pipeline_leaves_no_row(
    workspace: Path,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    status: Literal["FINISHED", "FAILED", "KILLED"],
    stages: dict[str, str],
    decision: str | None,
    rows: int,
) -> None:
    before = len(runs(""))
    parent = start_pipeline_run(params, "flow", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    if decision is not None:
        with stage_run("promotion", params) as promotion:
            promotion.pipeline.tags({"decision": decision})
    finish_pipeline_run(parent, status, stages, Path())
    assert len(runs("")) - before == rows


def test_what_is_restored_again_is_no_news(workspace: Path, params: Params) -> None:
    restored = dict.fromkeys(UNCHANGED, "restored")

    def rows(seed: int, stages: dict[str, str], status: Literal["FINISHED", "KILLED"] = "FINISHED") -> int:
        before = len(runs(""))
        run = start_pipeline_run(params.model_copy(update={"seed": seed}), "flow", Path())
        finish_pipeline_run(run, status, stages, Path())
        return len(runs("")) - before

    assert rows(100, restored, "KILLED") == 1
    assert rows(100, restored) == 1  # this store has no finished one
    assert rows(100, restored) == rows(100, restored | {"judge": "confirmed"}) == 0
    assert [rows(101, restored), rows(101, restored)] == [1, 0]
    assert rows(100, restored | {"data.dvc": "pinned"}) == 1
