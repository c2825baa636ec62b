"""MLflow's server on PostgreSQL is killed while stages train: they go on, and it is told all of it once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_servers import Server, mlflow_on_postgres
from recorded_runs import ROOT

from components.config import Params, load_params
from components.digests import digest
from components.place import Place
from components.stages import perform
from components.tracking import finish_pipeline_run, pipeline, runs, stage_run, start_pipeline_run, store
from components.tracking.delivery import deliver
from components.tracking.history import children, get_run, search
from components.tracking.journal import Journal
from components.tracking.recorder import RecordedRun
from components.tracking.runs import PARENT_VARIABLE
from components.tracking.store import StoreAway

ChangeParams = Callable[..., Params]
Points = Counter[tuple[str, int, float]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    with mlflow_on_postgres(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def served(server: tuple[Server, str], world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A world whose tracking store is that server, which runs at the end as at the beginning."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[1])
    for variable in (PARENT_VARIABLE, "RANK"):
        monkeypatch.delenv(variable, raising=False)
    yield server[0]
    if not server[0].is_running:
        server[0].start()


def points_of(run_id: str) -> Points:
    """Every point of a run, with how often it is there; what a clock measured is left out."""
    client = store.client()
    names = [name for name in client.get_run(run_id).data.metrics if "second" not in name]
    return Counter(
        (point.key, point.step, point.value) for name in names for point in client.get_metric_history(run_id, name)
    )


def undisturbed(stage: str, cycle: int | None, tracking: str) -> tuple[Points, str]:
    """The points of a stage that a database in a file is told, and the digest of what the stage made."""
    before = os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    try:
        out = made(stage, cycle)
        shutil.rmtree(out, ignore_errors=True)
        perform(stage, load_params(Place().params), Place(), cycle)
        points, content = points_of(search(f"tags.stage = '{stage}'")[0].run_id), digest(out)
    finally:
        os.environ["MLFLOW_TRACKING_URI"] = before
    shutil.rmtree(out)
    return points, content


def made(stage: str, cycle: int | None) -> Path:
    return Place().sft if cycle is None else Place().alignment / str(cycle)


def at(monkeypatch: pytest.MonkeyPatch, acts: dict[int, Callable[[], None]]) -> list[int]:
    """Do these when so many things were measured; returns the number so far, in a list."""
    real, counted = RecordedRun.metrics, [0]

    def metrics(run: RecordedRun, values: dict[str, float], step: int = 0) -> None:
        real(run, values, step)
        counted[0] += 1
        acts.get(counted[0], lambda: None)()

    monkeypatch.setattr(RecordedRun, "metrics", metrics)
    return counted


@pytest.mark.parametrize(("stage", "cycle", "killed", "back"), [("sft", None, 5, 12), ("alignment", 1, 4, 9)])
def test_a_server_that_is_away_for_a_while_has_every_point_once(
    served: Server,
    tracking: str,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    cycle: int | None,
    killed: int,
    back: int,
) -> None:
    points, content = undisturbed(stage, cycle, tracking)
    asked = at(monkeypatch, {killed: served.kill, back: served.start})
    parent = start_pipeline_run(load_params(Place().params), "flow", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    perform(stage, load_params(Place().params), Place(), cycle)
    assert asked[0] > back
    (run,) = children(parent)
    assert run.status == "FINISHED"
    assert points_of(run.run_id) == points
    assert set(points.values()) == {1}
    assert digest(made(stage, cycle)) == content
    assert list(Journal.left()) == []
    finish_pipeline_run(parent, "FINISHED", {stage: "ran"}, Path())
    closed = get_run(parent)
    assert closed is not None and closed.status == "FINISHED"


def test_what_a_server_that_stays_away_was_not_told_is_delivered_later_once(
    served: Server,
    change_params: ChangeParams,
    tracking: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    of_ppo, _ = undisturbed("alignment", 1, tracking)
    monkeypatch.setattr(runs, "_AT_THE_END_S", 2.0)
    params = load_params(Place().params)
    parent = start_pipeline_run(params, "flow", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    with monkeypatch.context() as patch:
        at(patch, {4: served.kill})
        perform("alignment", params, Place(), 1)
    assert "tracking store does not answer" in caplog.text and "the work goes on" in caplog.text
    assert "alignment-1: MLflow does not have all of this run: the tracking store does not answer" in caplog.text
    assert "`proximal sync` delivers it" in caplog.text

    began = int(time.time() * 1000)
    with stage_run("sft", params, [Place().clean]) as run:  # begins and ends while nobody answers
        assert run.run_id == "" and run.page("report.html") == ""
        run.metrics({"loss": 2.5}, step=1)
        run.pipeline.metrics({"eval/gold": 0.5})
        run.pipeline.table("figures.json", [{"figure": "gold", "sft": 0.25}])
        picture = Path("curve.png")
        picture.write_bytes(b"picture")
        run.figure(picture)
        run.dataset("prompts", Place().clean / "prompts_test.jsonl")
        run.outputs([picture])
        picture.unlink()
    ended = int(time.time() * 1000)
    registry = pytest.raises(StoreAway, match="model registry does not answer")
    with registry as refused, store.impatient(), stage_run("promotion", params):
        raise AssertionError("work began")
    assert "the next `proximal run` offers it" in refused.value.do
    finish_pipeline_run(parent, "FAILED", {"alignment@1": "ran", "sft": "ran"}, Path())

    assert sync_ends_with(2) == ["error: the tracking store does not answer"]
    served.start()
    both = [start_sync() for _ in range(2)]
    told = [entry for process in both for entry in json.loads(process.communicate()[0])]
    assert [process.returncode for process in both] == [0, 0]
    delivered = {entry["name"]: entry for entry in told if entry["outcome"] == "delivered"}
    assert set(delivered) == {"alignment-1", "sft", "pipeline"}
    assert (delivered["sft"]["points"], delivered["sft"]["files"]) == (2, 2)
    assert Counter(entry["outcome"] for entry in told)["delivered"] == 3
    assert "nothing to deliver" in sync_ends_with(0)[0]

    stages = {run.name: run for run in children(parent)}
    assert set(stages) == {"alignment 1", "sft"}
    assert {run.status for run in stages.values()} == {"FINISHED"}
    assert points_of(stages["alignment 1"].run_id) == of_ppo
    late = store.client().get_run(stages["sft"].run_id)
    assert began <= late.info.start_time <= late.info.end_time <= ended
    assert late.data.metrics == {"loss": 2.5}
    assert late.data.params["sft.epochs"] == str(params.sft.epochs)
    assert stages["sft"].inputs[Place().clean.as_posix()] == digest(Place().clean)
    assert [found.dataset.name for found in late.inputs.dataset_inputs] == ["prompts"]
    copied = store.client().download_artifacts(late.info.run_id, "figures/curve.png", str(Path.cwd()))
    assert Path(copied).read_bytes() == b"picture"
    mother = store.client().get_run(parent)
    assert mother.info.status == "FAILED" and mother.data.metrics == {"eval/gold": 0.5}
    assert json.loads(mother.data.tags["mlflow.loggedArtifacts"]) == [{"path": "figures.json", "type": "table"}]


def test_what_was_sent_before_a_kill_is_sent_again_to_no_effect(
    served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is sent is noted too late, each time anew, until nothing is left to be sent."""
    journal = Journal.begin("sft")
    journal.add(
        {"open": {"name": "sft", "tags": {"stage": "twice"}, "params": {"a": "1"}, "at": 5, "invocation": None}}
    )
    run = RecordedRun(journal, "sft")
    run.metrics({"loss": 1.0, "nan": float("nan")}, step=3)
    run.tags({"told": "yes"})
    run.table("rows.json", [{"a": 1}])
    run.metrics({"loss": 2.0}, step=4)
    run.end("FINISHED")
    real, kills = Journal.note, [0]

    def killed_once(journal: Journal, **state: Any) -> None:
        if kills[0] % 2 == 0 and ("offset" in state or "run" in state):
            kills[0] += 1
            raise KeyboardInterrupt
        kills[0] += 1
        real(journal, **state)

    monkeypatch.setattr(Journal, "note", killed_once)
    for _ in range(40):
        try:
            deliver(journal)
        except KeyboardInterrupt:
            continue
        break
    assert kills[0] > 10 and not any(journal.waiting())
    journal.close(remove=True)
    (record,) = search("tags.stage = 'twice'")
    history = store.client().get_metric_history(record.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(3, 1.0), (4, 2.0)]
    assert len(store.client().get_metric_history(record.run_id, "nan")) == 1
    whole = store.client().get_run(record.run_id)
    assert (record.status, whole.info.start_time, record.tags["told"]) == ("FINISHED", 5, "yes")
    assert json.loads(whole.data.tags["mlflow.loggedArtifacts"]) == [{"path": "rows.json", "type": "table"}]
    table = store.client().download_artifacts(record.run_id, "rows.json", str(Path.cwd()))
    assert json.loads(Path(table).read_text()) == {"columns": ["a"], "data": [[1]]}


def test_a_run_whose_end_another_delivers_is_not_called_dead(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(Place().params)
    monkeypatch.setattr(pipeline, "process_is_gone", lambda tags: True)
    with stage_run("sft", params) as run:
        assert pipeline.reconcile_dead_runs() == []
        assert store.client().get_run(run.run_id).info.status == "RUNNING"


def start_sync() -> subprocess.Popen[str]:
    """`proximal sync` in this world, which is made a project for it."""
    shutil.copy(ROOT / "dvc.yaml", Path())
    subprocess.run(["git", "init", "-q"], check=True)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "sync", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sync_ends_with(status: int) -> list[str]:
    shutil.copy(ROOT / "dvc.yaml", Path())
    subprocess.run(["git", "init", "-q"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sync"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return (done.stdout or done.stderr).splitlines()[:1]
