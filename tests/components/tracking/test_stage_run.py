"""What the run of a stage records: params, tags, metrics, files and its inputs and outputs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded_runs import ROOT, id_of, run_of, runs

from components.config import Params
from components.digests import digest
from components.errors import ArtifactError
from components.tracking import finish_pipeline_run, stage_run, start_pipeline_run
from components.tracking import store as tracking_store
from components.tracking.provenance import flatten
from components.tracking.runs import PARENT_VARIABLE
from components.tracking.tag_names import all_plain


def test_import_does_not_import_mlflow() -> None:
    code = "import sys, components.tracking, components.interface.lineage; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_stage_is_a_child_with_its_params_tags_metrics_and_files(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    rows = Path("artifacts/clean/rows.jsonl")
    rows.parent.mkdir(parents=True)
    rows.write_text('{"a": 1}\n{"a": 2}\n')
    parent = start_pipeline_run(params, "flow-7", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    monkeypatch.setenv("PROXIMAL_FLOW_RUN_ID", "flow-7")
    with stage_run("alignment", params, inputs=[rows], cycle=3) as run:
        run.metrics({"kl": 1.5, "gold": 0.25}, step=10)
        run.metrics({"kl": 2.5}, step=20)
        run.table("samples.json", [{"prompt": "p", "gold": 1.0}, {"prompt": "q", "kind": "known"}])
        run.dataset("prompts", rows)
        picture = Path("curve.png")
        picture.write_bytes(b"picture")
        run.figure(picture)
        run.artifact(rows.parent)
        policy = Path("artifacts/alignment/3/policy")
        policy.mkdir(parents=True)
        (policy / "model.bin").write_bytes(b"weights")
        run.outputs([policy.parent])

    finished = run_of(run)
    tags = all_plain(finished.data.tags)
    assert finished.info.status == "FINISHED"
    assert finished.info.run_name == "alignment-3"
    assert (tags["mlflow.parentRunId"], tags["parent_run_id"]) == (parent, parent)
    assert (tags["stage"], tags["cycle"], tags["prefect_flow_run_id"]) == ("alignment", "3", "flow-7")
    assert tags["data_md5"] == "0123456789abcdef0123456789abcdef.dir"
    assert len(tags["params_sha256"]) == 64
    assert (tags["git_commit"], tags["git_dirty"]) == ("none", "false")  # this folder is no repository
    assert tags["in:artifacts/clean/rows.jsonl"] == digest(rows)
    for part in (policy.parent, policy, policy / "model.bin"):
        assert tags[f"out:{part}"] == digest(part)
    assert finished.data.params["seed"] == "1"
    assert finished.data.params["ppo.gamma"] == "1.0"
    assert not [name for name in finished.data.params if name.startswith("sft.")]
    history = tracking_store.client().get_metric_history(id_of(run), "kl")
    assert [(metric.step, metric.value) for metric in history] == [(10, 1.5), (20, 2.5)]
    assert finished.data.metrics["gold"] == 0.25

    dataset = finished.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("prompts", digest(rows))
    assert json.loads(dataset.dataset.source) == {"uri": "artifacts/clean/rows.jsonl"}
    assert json.loads(dataset.dataset.profile) == {"rows": 2}

    folder = Path(finished.info.artifact_uri)
    assert (folder / "figures" / "curve.png").read_bytes() == b"picture"
    assert (folder / "clean" / "rows.jsonl").read_bytes() == rows.read_bytes()
    table = json.loads((folder / "samples.json").read_text())
    assert table["columns"] == ["prompt", "gold", "kind"]
    assert table["data"] == [["p", 1.0, None], ["q", None, "known"]]
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]

    mother = tracking_store.client().get_run(parent)
    assert mother.data.params["sft.epochs"] == str(params.sft.epochs)
    assert mother.data.params["cycles.2.start"] == "artifacts/alignment/1"
    assert mother.info.status == "RUNNING"
    finish_pipeline_run(parent, "FINISHED", {"alignment@3": "ran"}, Path())


def test_commit_and_uncommitted_changes_are_tagged(workspace: Path, params: Params) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        if command == ["add", "."]:
            Path("code.py").write_text("one\n")
            Path("compare").mkdir()
            for lock in ("dvc.lock", "compare/dvc.lock"):
                Path(lock).write_text("stages: {}\n")
        subprocess.run([*git, *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    for lock in ("dvc.lock", "compare/dvc.lock"):  # what a run leaves is no change of what it runs
        Path(lock).write_text("stages: {} # of this machine\n")
    with stage_run("sft", params) as clean:
        pass
    Path("code.py").write_text("two\n")
    with stage_run("sft", params) as dirty:
        pass
    assert (run_of(clean).data.tags["git_commit"], run_of(clean).data.tags["git_dirty"]) == (head, "false")
    assert (run_of(dirty).data.tags["git_commit"], run_of(dirty).data.tags["git_dirty"]) == (head, "true")


def test_metrics_of_a_training_loop_arrive_in_few_writes_and_complete(workspace: Path, params: Params) -> None:
    with stage_run("sft", params) as run:
        start = time.perf_counter()
        for step in range(2500):
            run.metrics({"loss": float(step)}, step=step)
        seconds = time.perf_counter() - start
    history = tracking_store.client().get_metric_history(id_of(run), "loss")
    assert sorted(metric.step for metric in history) == list(range(2500))
    assert seconds < 2.5, "a metrics call must cost less than a millisecond on average"


def test_other_ranks_record_nothing(workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(runs(""))
    monkeypatch.setenv("RANK", "1")
    with stage_run("sft", params, inputs=[workspace]) as run:
        run.metrics({"loss": 1.0})
        run.table("t.json", [{"a": 1}])
        run.figure(Path("none.png"))
        run.artifact(Path("none"))
        run.dataset("d", Path("none.jsonl"))
        run.outputs([Path("none")])
        run.tags({"a": "b"})
    assert len(runs("")) == before
    monkeypatch.setenv("RANK", "0")
    with stage_run("sft", params):
        pass
    assert len(runs("")) == before + 1


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_rank_names_a_missing_input(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    missing = workspace / "no/such/file"
    with (
        pytest.raises(ArtifactError, match=f"an input is missing\n  where:      {missing}"),
        stage_run("sft", params, inputs=[missing]),
    ):
        pass


def test_flatten_by_hand() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2], "e": True}) == {
        "a.b.c": "1",
        "d": "[1, 2]",
        "e": "True",
    }
