"""The way back from a model, over a chain of runs made by hand in a real store, with a real DVC cache."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from components.config import Params, load_params
from components.digests import digest
from components.errors import ArtifactError
from components.interface.lineage import as_plain, print_lineage
from components.tracking import stage_run
from components.tracking import store as tracking_store
from components.tracking.lineage import trace
from components.tracking.recorder import RecordedRun
from components.tracking.registration import register
from components.tracking.registry import PROMOTION_RUN, set_alias
from components.tracking.runs import PARENT_VARIABLE

ROOT = Path(__file__).resolve().parents[3]
DATA_MD5 = "00112233445566778899aabbccddeeff.dir"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def workspace(shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared_store / 'mlflow.db'}")
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {DATA_MD5}\n  path: data\n")
    return tmp_path


def write(path: str, content: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    return Path(path)


def record(stage: str, params: Params, inputs: Sequence[str], outputs: dict[str, str], cycle: int | None = None) -> str:
    """Run a stage that writes `outputs` (path -> content) and records the whole folder of the first one."""
    with stage_run(stage, params, [Path(path) for path in inputs], cycle) as run:
        for path, content in outputs.items():
            write(path, content)
        run.outputs([Path("artifacts", *Path(path).parts[1:2]) for path in list(outputs)[:1]])
    time.sleep(0.002)  # start times are in milliseconds
    assert isinstance(run, RecordedRun)
    return run.run_id


def make_chain(params: Params, name: str, salt: str) -> dict[str, str]:
    """data -> data_validation -> sft -> judge, alignment 1 -> alignment 2 -> selection -> promotion; gives run ids."""
    write("data/prompts.jsonl", f'{{"id": 1}}\n{{"id": 2}}\n{{"id": "{salt}"}}\n')
    write("data/demonstrations.jsonl", f'{{"id": "{salt}"}}\n')
    clean = "artifacts/data_validation/clean"
    ids = {
        "data_validation": record(
            "data_validation",
            params,
            ["data"],
            {f"{clean}/demonstrations.jsonl": salt, f"{clean}/comparisons_judge.jsonl": salt},
        )
    }
    demonstrations, comparisons = f"{clean}/demonstrations.jsonl", f"{clean}/comparisons_judge.jsonl"
    ids["sft"] = record("sft", params, [demonstrations], {"artifacts/sft/policy/model.bin": "sft" + salt})
    sft = "artifacts/sft/policy"
    ids["judge"] = record("judge", params, [comparisons, sft], {"artifacts/judge/model/model.bin": "j" + salt})
    for cycle, start in ((1, sft), (2, "artifacts/alignment/1")):
        out = {f"artifacts/alignment/{cycle}/policy/model.bin": f"{cycle}{salt}"}
        with stage_run("alignment", params, [Path(start), Path("artifacts/judge/model")], cycle) as run:
            write(*next(iter(out.items())))
            run.outputs([Path(f"artifacts/alignment/{cycle}")])
        assert isinstance(run, RecordedRun)
        ids[f"alignment {cycle}"] = run.run_id
        time.sleep(0.002)
    cycles = ["artifacts/alignment/1/policy", "artifacts/alignment/2/policy"]
    ids["selection"] = record("selection", params, cycles, {"artifacts/selection/policy/model.bin": f"2{salt}"})
    policy = Path("artifacts/selection/policy")
    with stage_run("promotion", params, [policy]) as run:
        assert isinstance(run, RecordedRun)
        ids["promotion"] = run.run_id
        tags = {PROMOTION_RUN: run.run_id, f"in:{policy}": digest(policy), "decision": "promoted"}
        version = register(run.run_id, name, policy, tags, {"temperature": 1.0})
    set_alias(version, "champion")
    return ids


def printed(reference: str) -> str:
    text = io.StringIO()
    print_lineage(trace(reference, Path()), Console(file=text, width=200))
    return text.getvalue()


def test_the_way_back_names_every_run_and_the_raw_rows(workspace: Path, params: Params) -> None:
    ids = make_chain(params, "whole", "a")
    lineage = trace("whole@champion", Path())
    steps = {step.run.name: step for step in lineage.root.all_steps()}
    assert {name: step.run.run_id for name, step in steps.items()} == ids
    assert {name: sorted(source.run.name for source in step.made_from) for name, step in steps.items()} == {
        "promotion": ["selection"],
        "selection": ["alignment 1", "alignment 2"],
        "alignment 2": ["alignment 1", "judge"],
        "alignment 1": ["judge", "sft"],
        "judge": ["data_validation", "sft"],
        "sft": ["data_validation"],
        "data_validation": [],
    }
    assert not any(step.broken for step in steps.values())
    files = {file.path: (file.rows, file.md5, file.place) for file in steps["data_validation"].raw_files}
    assert files == {
        "data/prompts.jsonl": (3, digest(Path("data/prompts.jsonl")), "in data/"),
        "data/demonstrations.jsonl": (1, digest(Path("data/demonstrations.jsonl")), "in data/"),
    }
    order = [step.run.name for step in lineage.root.all_steps()]
    assert order == ["promotion", "selection", "alignment 2", "alignment 1", "judge", "sft", "data_validation"]

    told = as_plain(lineage)
    assert (told["model"], told["version"], told["aliases"]) == ("whole", 1, ["champion"])
    assert [run["run_id"] for run in told["runs"]] == [ids[name] for name in order]
    runs = {run["name"]: run for run in json.loads(json.dumps(told))["runs"]}
    assert sorted(runs["alignment 1"]["made_from"]) == sorted([ids["judge"], ids["sft"]])
    rows = {file["path"]: file["rows"] for file in runs["data_validation"]["raw_files"]}
    assert rows == {"data/prompts.jsonl": 3, "data/demonstrations.jsonl": 1}

    # Asked from another folder, the raw rows are still those of the repository.
    elsewhere = trace("whole@champion", workspace.resolve()).root.all_steps()
    assert {f.path: f.place for step in elsewhere for f in step.raw_files} == dict.fromkeys(files, "in data/")

    text = printed("whole@1")
    for run_id in ids.values():
        assert run_id in text
    for word in ("whole version 1 @champion", DATA_MD5, "prompts.jsonl  3 rows", "made from alignment 1, judge"):
        assert word in text
    assert "breaks" not in text


def test_the_way_back_goes_through_the_rounds_before(workspace: Path, params: Params) -> None:
    ids = make_chain(params, "rounds", "r")
    write("present_policy/policy/model.bin", "2r")  # as the selected policy of that chain
    later = record("alignment", params, ["present_policy/policy"], {"artifacts/alignment/1/policy/model.bin": "3r"}, 1)
    chosen = record(
        "selection", params, ["artifacts/alignment/1/policy"], {"artifacts/selection/policy/model.bin": "3"}
    )
    policy = Path("artifacts/selection/policy")
    with stage_run("promotion", params, [policy]) as run:
        assert isinstance(run, RecordedRun)
        tags = {PROMOTION_RUN: run.run_id, f"in:{policy}": digest(policy), "decision": "promoted"}
        register(run.run_id, "rounds", policy, tags, {"temperature": 1.0})
    lineage = trace("rounds@2", Path())
    made_from = {step.run.run_id: [each.run.run_id for each in step.made_from] for step in lineage.root.all_steps()}
    assert made_from[run.run_id] == [chosen] and made_from[chosen] == [later]
    assert made_from[later] == [ids["selection"]] and ids["data_validation"] in made_from
    assert not any(step.broken for step in lineage.root.all_steps())


def test_a_restored_stage_links_to_the_run_before_and_not_to_a_later_repetition(
    workspace: Path, params: Params
) -> None:
    ids = make_chain(params, "repeated", "b")
    # The same SFT again, later, with the same result: the model was made from the first one.
    repetition = record("sft", params, [], {"artifacts/sft/policy/model.bin": "sftb"})
    shutil.rmtree("artifacts")  # nothing of the artifacts is needed
    steps = {step.run.name: step.run.run_id for step in trace("repeated@champion", Path()).root.all_steps()}
    assert steps == ids
    assert repetition not in steps.values()


def test_a_break_is_named_where_it_is(workspace: Path, params: Params) -> None:
    ids = make_chain(params, "broken", "c")
    tracking_store.client().delete_run(ids["judge"])
    tracking_store.client().delete_run(ids["data_validation"])
    steps = {step.run.name: step for step in trace("broken@champion", Path()).root.all_steps()}
    assert "judge" not in steps
    judge = Path("artifacts/judge/model/model.bin")
    assert steps["alignment 1"].broken == {judge.as_posix(): digest(judge)}
    assert list(steps["sft"].broken) == ["artifacts/data_validation/clean/demonstrations.jsonl"]
    assert [source.run.name for source in steps["alignment 1"].made_from] == ["sft"]
    text = printed("broken@champion")
    assert "the chain breaks here: no run in this store made artifacts/judge/model/model.bin" in text
    assert "the chain does not reach data/" in text


def test_a_deleted_promotion_run_does_not_break_the_chain(workspace: Path, params: Params) -> None:
    ids = make_chain(params, "unpromoted", "d")
    tracking_store.client().delete_run(ids["promotion"])
    names = [step.run.name for step in trace("unpromoted@champion", Path()).root.all_steps()]
    assert names[:2] == ["promotion", "selection"] and names[-1] == "data_validation"
    assert "this run was deleted" in printed("unpromoted@champion")


def test_a_changed_output_has_another_maker(workspace: Path, params: Params) -> None:
    """Nothing is linked by path alone."""
    make_chain(params, "first", "e")
    second = make_chain(params, "second", "f")
    steps = {step.run.name: step.run.run_id for step in trace("second@champion", Path()).root.all_steps()}
    assert steps == second


def test_rows_come_from_the_cache_when_data_is_absent_or_has_changed(workspace: Path, params: Params) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "true"}
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, env=environment)
    make_chain(params, "cached", "g")
    for name in ("prompts", "demonstrations"):
        content = Path(f"data/{name}.jsonl")
        md5 = digest(content)
        if name == "prompts":  # as `dvc add` would keep it
            kept = Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]
            kept.parent.mkdir(parents=True)
            shutil.copy(content, kept)
    write("data/prompts.jsonl", "{}\n")
    Path("data/demonstrations.jsonl").unlink()
    [step] = [step for step in trace("cached@champion", Path()).root.all_steps() if step.raw_files]
    found = {file.path: (file.rows, file.place) for file in step.raw_files}
    assert found["data/prompts.jsonl"] == (3, "DVC's cache")
    assert found["data/demonstrations.jsonl"][0] is None
    assert "rows unknown" in printed("cached@champion")


@pytest.mark.parametrize("reference", ["nothing@champion", "known@nothing", "known@99", "known", "@", "a:b@c"])
def test_what_does_not_exist_is_an_error_that_says_what_does(workspace: Path, params: Params, reference: str) -> None:
    if reference.startswith("known@"):
        policy = write("policy/model.bin", "x").parent
        with stage_run("promotion", params) as run:
            assert isinstance(run, RecordedRun)
            set_alias(register(run.run_id, "known", policy, {}, {"temperature": 1.0}), "candidate")
    with pytest.raises(ArtifactError) as caught:
        trace(reference, Path())
    assert reference in str(caught.value)
    if reference.startswith("known@"):
        assert "aliases candidate (version" in str(caught.value)


def test_an_empty_store_is_not_made_by_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ArtifactError, match="no tracking store"):
        trace("policy@champion", Path())
    assert list(tmp_path.iterdir()) == []
