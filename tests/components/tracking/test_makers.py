"""Which run made an output: what the parent run says, also when nothing ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from recorded_runs import id_of, run_of

from components.config import Params
from components.digests import digest
from components.tracking import finish_pipeline_run, stage_run, start_pipeline_run
from components.tracking import store as tracking_store
from components.tracking.history import find_maker
from components.tracking.runs import PARENT_VARIABLE
from components.tracking.tag_names import all_plain


def maker_of(outputs: dict[str, str], before: int | None = None) -> str | None:
    maker = find_maker(outputs, before)
    return maker.run_id if maker else None


def test_the_parent_names_the_run_that_made_each_output_also_when_nothing_ran(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Path("artifacts/sft/policy")
    policy.mkdir(parents=True)
    (policy / "model.bin").write_bytes(b"sft of this test")
    monkeypatch.setenv(PARENT_VARIABLE, start_pipeline_run(params, "flow-1", Path()))
    with stage_run("sft", params) as maker:
        maker.outputs([policy])
    with stage_run("sft", params) as other:
        (policy / "model.bin").write_bytes(b"another result")
        other.outputs([policy])
        (policy / "model.bin").write_bytes(b"sft of this test")
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        f"  sft:\n    cmd: x\n    outs:\n    - path: {policy}\n      md5: {digest(policy)}\n"
        "  alignment@1:\n    cmd: x\n    outs:\n    - path: data.dvc\n      md5: 0123\n"
        "  judge:\n    cmd: x\n    outs:\n    - path: artifacts/judge\n      md5: 4567\n"
    )
    Path("data.dvc").write_text("outs:\n- md5: 89.dir\n  path: data\n")
    second = start_pipeline_run(params, "flow-2", Path())
    outcomes = {"sft": "unchanged", "alignment@1": "ran", "judge": "failed", "promotion": "ran"}
    finish_pipeline_run(second, "FAILED", outcomes, Path())
    parent = tracking_store.client().get_run(second)
    tags = {name: value for name, value in all_plain(parent.data.tags).items() if ":" in name}
    assert tags == {
        "outcome:sft": "unchanged",
        "outcome:alignment-1": "ran",
        "outcome:judge": "failed",
        "outcome:promotion": "ran",
        "made_by:sft": id_of(maker),
        "made_by:alignment-1": "not in this tracking store",
    }
    assert parent.info.status == "FAILED"
    assert all_plain(parent.data.tags)["prefect_flow_run_id"] == "flow-2"
    finish_pipeline_run(os.environ[PARENT_VARIABLE], "FINISHED", {"sft": "ran"}, Path())


def test_a_maker_agrees_on_all_outputs_and_came_before(workspace: Path, params: Params) -> None:
    for content in ("one", "two"):
        Path("clean").mkdir(exist_ok=True)
        Path("clean/rows").write_text(content)
        Path("quarantine").write_text("")  # the same in both runs
        with stage_run("data_validation", params) as run:
            run.outputs([Path("clean"), Path("quarantine")])
        if content == "one":
            first, first_outputs = run, {path: digest(Path(path)) for path in ("quarantine", "clean")}
        time.sleep(0.01)
    second_outputs = {path: digest(Path(path)) for path in ("quarantine", "clean")}
    assert maker_of(first_outputs) == id_of(first)
    assert maker_of(second_outputs) == id_of(run)
    only_empty = {"quarantine": second_outputs["quarantine"]}
    assert maker_of(only_empty) == id_of(run)
    start = run_of(run).info.start_time
    assert maker_of(only_empty, before=start) == id_of(first)
    assert maker_of({"clean": "0" * 32}) is None
