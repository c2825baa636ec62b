"""Runs in a real MLflow store: a sqlite database in a temporary folder, real processes where they matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.config import Params, load_params
from components.digests import digest
from components.errors import ArtifactError, ConfigError, DataError, EnvironmentFault
from components.tracking import (
    StageRun,
    finish_pipeline_run,
    reconcile_dead_runs,
    stage_run,
    start_pipeline_run,
)
from components.tracking import store as tracking_store
from components.tracking.history import find_maker
from components.tracking.provenance import flatten
from components.tracking.runs import PARENT_VARIABLE, RecordedRun

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made once for all tests of this file: making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def workspace(shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own for the files of a test, with the shared store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared_store / 'mlflow.db'}")
    for variable in (PARENT_VARIABLE, "PROXIMAL_FLOW_RUN_ID", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def runs(query: str) -> Any:
    return tracking_store.client().search_runs([tracking_store.experiment_id()], query)


def id_of(run: StageRun) -> str:
    assert isinstance(run, RecordedRun)
    return run.run_id


def run_of(run: StageRun) -> Any:
    return tracking_store.client().get_run(id_of(run))


def maker_of(outputs: dict[str, str], before: int | None = None) -> str | None:
    maker = find_maker(outputs, before)
    return maker.run_id if maker else None


def python(code: str, *arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that runs `code` in `folder` with params at hand."""
    start = (
        "import sys, time\nfrom pathlib import Path\nfrom components.config import load_params\n"
        f"params = load_params(Path({str(ROOT / 'params.yaml')!r}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    tags = finished.data.tags
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
    finish_pipeline_run(parent, "FINISHED", {}, {}, Path())


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


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (DataError("a row is bad", where="row 3"), "FAILED", "DataError: a row is bad"),
        (RuntimeError("first\nsecond"), "FAILED", "RuntimeError: first"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (SystemExit(3), "KILLED", "SystemExit: 3"),
    ],
)
def test_what_goes_wrong_ends_the_run_and_goes_on(
    workspace: Path, params: Params, fault: BaseException, status: str, error: str
) -> None:
    with pytest.raises(type(fault)) as caught, stage_run("sft", params) as run:
        run.metrics({"loss": 1.0})
        raise fault
    assert caught.value is fault
    ended = run_of(run)
    assert (ended.info.status, ended.data.tags["error"]) == (status, error)
    assert ended.data.metrics == {"loss": 1.0}, "what was measured before is kept"


def test_sigterm_ends_the_run_as_killed(workspace: Path, params: Params) -> None:
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run('sft', params) as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(code, folder=workspace)
    run_id = process.stdout.readline().strip()  # type: ignore[union-attr]
    process.terminate()
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    ended = tracking_store.client().get_run(run_id)
    assert (ended.info.status, ended.data.tags["error"]) == ("KILLED", "SystemExit: 143")


def test_a_run_whose_process_was_killed_is_reconciled_and_a_living_one_is_not(workspace: Path, params: Params) -> None:
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run('sft', params) as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = python(code, folder=workspace)
    killed = process.stdout.readline().strip()  # type: ignore[union-attr]
    with stage_run("judge", params) as living:
        assert reconcile_dead_runs() == []
        process.kill()
        process.communicate()
        assert run_of(living).info.status == "RUNNING"
        assert tracking_store.client().get_run(killed).info.status == "RUNNING"
        assert reconcile_dead_runs() == [killed]
        assert reconcile_dead_runs() == []
        assert run_of(living).info.status == "RUNNING"
    ended = tracking_store.client().get_run(killed)
    assert ended.info.status == "KILLED"
    assert "without a word" in ended.data.tags["error"]


def test_a_run_of_another_machine_or_of_a_reused_pid_is_told_apart(workspace: Path, params: Params) -> None:
    with stage_run("sft", params) as elsewhere, stage_run("judge", params) as reused:
        elsewhere.tags({"process_host": "another-machine", "process_pid": "999999999"})
        reused.tags({"process_started": "1.0"})
        assert reconcile_dead_runs() == [id_of(reused)]


def test_other_ranks_record_nothing(workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(runs(""))
    monkeypatch.setenv("RANK", "1")
    with stage_run("sft", params, inputs=[Path("no/such/file")]) as run:
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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project of two recorded stages, of which the second may fail; its store is the repository's own."""
    stage = (
        "import sys\nfrom pathlib import Path\nfrom components.config import load_params\n"
        "from components.tracking import stage_run\n"
        "with stage_run(sys.argv[1], load_params(Path('params.yaml'))):\n"
        "    assert sys.argv[1] != 'judge' or Path('may_end').read_text() == 'yes'\n"
        "    Path(sys.argv[1]).write_text(Path('params.yaml').read_text())\n"
    )
    stages = {
        "sft": {"cmd": f"{sys.executable} stage.py sft", "deps": ["params.yaml"], "outs": ["sft"]},
        "judge": {"cmd": f"{sys.executable} stage.py judge", "deps": ["sft", "may_end"], "outs": ["judge"]},
    }
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "stage.py").write_text(stage)
    (folder / "may_end").write_text("yes")
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".gitignore").write_text("/sft\n/judge\n/mlflow.db*\n/mlartifacts\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # for the queue
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    for variable in (PARENT_VARIABLE, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    subprocess.run(["git", "init", "-q"], check=True)
    for name in ("NAME", "EMAIL"):
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_{name}", "t@localhost")
    dvc("init", "-q")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "first"], check=True)
    return folder


def dvc(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, check=False).returncode


def test_every_dvc_command_gives_one_parent_run_with_its_stages_in_the_repositorys_store(project: Path) -> None:
    commands = [
        ("repro",),
        ("exp", "run", "-S", "seed=11"),
        ("exp", "run", "--temp", "-S", "seed=12"),
        ("exp", "run", "-S", "seed=13", "--queue"),
    ]
    for command in commands:
        assert dvc(*command) == 0
    assert dvc("queue", "start") == 0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(ended_parents()) < 4:
        time.sleep(0.5)
    assert sorted(parent.data.params["seed"] for parent in ended_parents()) == ["1", "11", "12", "13"]
    for parent in ended_parents():
        children = runs(f"tags.parent_run_id = '{parent.info.run_id}'")
        assert {child.data.tags["stage"] for child in children} == {"sft", "judge"}
        assert {child.info.status for child in children} == {"FINISHED"} and len(children) == 2
    assert len(runs("")) == 12  # nobody is an orphan


def ended_parents() -> list[Any]:
    ended = [parent for parent in runs("tags.stage = 'pipeline'") if parent.info.status == "FINISHED"]
    return [run for run in ended if len(runs(f"tags.parent_run_id = '{run.info.run_id}'")) == 2]


def test_the_run_of_a_dvc_command_whose_stage_failed_has_failed(project: Path) -> None:
    Path("may_end").write_text("no")
    assert dvc("repro") != 0
    [failed] = runs("tags.stage = 'pipeline'")
    Path("may_end").write_text("yes")
    assert dvc("repro") == 0  # another command, another run
    statuses = {run.info.run_id: run.info.status for run in runs("tags.stage = 'pipeline'")}
    assert statuses.pop(failed.info.run_id) == "FAILED" and list(statuses.values()) == ["FINISHED"]
    assert reconcile_dead_runs() == []


def test_a_parent_of_another_store_is_refused(workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    with (
        pytest.raises(ConfigError, match="parent run is not in this tracking store"),
        stage_run("sft", params),
    ):
        pass


def test_a_relative_sqlite_path_is_refused(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ConfigError, match="relative path"), stage_run("sft", params):
        pass


def test_a_store_that_was_moved_is_refused_and_nothing_is_written_at_its_old_place(
    tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old / 'mlflow.db'}")
    with stage_run("sft", params) as run:
        run.table("rows.json", [{"a": 1}])
    old.rename(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    with pytest.raises(EnvironmentFault) as caught, stage_run("sft", params):
        raise AssertionError("work began")
    assert str(new / "mlflow.db") in caught.value.where and caught.value.found == str(old / "mlartifacts")
    assert not old.exists()
    link = f"ln -s {new} {old}"
    assert link in caught.value.do
    subprocess.run(link.split(), check=True)
    with stage_run("sft", params) as run:
        run.table("rows.json", [{"a": 1}])
    assert len(list(new.glob("mlartifacts/*/artifacts/rows.json"))) == 2


def test_a_damaged_database_is_named(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("mlflow.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(EnvironmentFault, match="not a database") as caught, stage_run("sft", params):
        pass
    assert str(tmp_path / "mlflow.db") in str(caught.value)


def test_a_store_that_fails_at_the_end_does_not_cover_the_first_fault(
    workspace: Path, params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = os.environ["MLFLOW_TRACKING_URI"]
    with pytest.raises(DataError, match="the real fault"), stage_run("sft", params) as run:
        Path("broken.db").write_bytes(b"this is no database, " * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'broken.db'}")
        raise DataError("the real fault")
    assert "stays open in MLflow" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", good)
    assert run_of(run).info.status == "RUNNING"


def test_two_processes_make_the_database_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    code = (
        "from components.tracking import stage_run\n"
        "with stage_run(sys.argv[1], params) as run:\n"
        "    run.metrics({'loss': 1.0})\n"
    )
    processes = [python(code, stage, folder=tmp_path) for stage in ("reward_model", "judge")]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = runs("attributes.status = 'FINISHED'")
    assert sorted(run.data.tags["stage"] for run in found) == ["judge", "reward_model"]
    assert {run.data.metrics["loss"] for run in found} == {1.0}
    assert Path(found[0].info.artifact_uri).is_relative_to(tmp_path / "mlartifacts")
    left = {path.name for path in tmp_path.iterdir()} - {"mlartifacts"}
    assert left == {"mlflow.db", "mlflow.db.lock"}


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
    finish_pipeline_run(second, "FAILED", outcomes, {"gold": 0.5}, Path())
    parent = tracking_store.client().get_run(second)
    tags = {name: value for name, value in parent.data.tags.items() if ":" in name}
    assert tags == {
        "outcome:sft": "unchanged",
        "outcome:alignment-1": "ran",
        "outcome:judge": "failed",
        "outcome:promotion": "ran",
        "made_by:sft": id_of(maker),
        "made_by:alignment-1": "not in this tracking store",
    }
    assert parent.info.status == "FAILED"
    assert parent.data.metrics == {"gold": 0.5}
    assert parent.data.tags["prefect_flow_run_id"] == "flow-2"
    finish_pipeline_run(os.environ[PARENT_VARIABLE], "FINISHED", {}, {}, Path())


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


def test_flatten_by_hand() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2], "e": True}) == {
        "a.b.c": "1",
        "d": "[1, 2]",
        "e": "True",
    }
