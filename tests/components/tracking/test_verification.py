"""Inputs that are absent, or are not what the stage before made, are refused before a run is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_runs import runs

from components.config import Params
from components.digests import digest
from components.errors import ArtifactError
from components.tracking import stage_run


def test_a_missing_input_is_named_and_opens_no_run(workspace: Path, params: Params) -> None:
    before = len(runs(""))
    with (
        pytest.raises(ArtifactError, match="artifacts/nowhere"),
        stage_run("sft", params, [Path("artifacts/nowhere")]),
    ):
        pass
    assert len(runs("")) == before


@pytest.mark.parametrize("stage", ["sft", "promotion"])
def test_an_input_that_is_not_what_its_stage_made_is_refused_before_work_begins(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Under DVC: dvc.lock says what came before. Files inside a folder, and a folder around files, are told too."""
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    for file in ("out/folder/a", "out/folder/b", "out/file", "other"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(file)
    outs = [{"path": path, "md5": digest(Path(path))} for path in ("out/folder", "out/file", "other")]
    Path("dvc.lock").write_text(json.dumps({"stages": {"before": {"outs": outs}}}))
    monkeypatch.setenv("DVC_STAGE", "sft")
    if stage == "promotion":
        monkeypatch.delenv("DVC_STAGE")  # the flow runs it, always after DVC
    inputs = ("out/folder/a", "out/file", "out")
    for path in inputs:
        with stage_run(stage, params, [Path(path)]):
            pass
    Path("other").write_text("nobody reads it")
    with stage_run(stage, params, [Path("out")]):
        pass
    for path, changed in (("out/folder/a", "out/folder/b"), ("out/file", "out/file"), ("out", "out/file")):
        before = Path(changed).read_text()
        Path(changed).write_text("damaged")
        found = len(runs(""))
        with pytest.raises(ArtifactError) as caught, stage_run(stage, params, [Path(path)]):
            raise AssertionError("work began")
        assert "of stage before" in caught.value.where and "damaged" not in caught.value.found
        assert any(out["md5"] in caught.value.expected for out in outs) and "dvc repro" in caught.value.do
        assert len(runs("")) == found
        Path(changed).write_text(before)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    Path("out/file").write_text("changed by hand")
    with stage_run("sft", params, [Path("out")]):  # by hand, without DVC: its lock may be of another time
        pass
