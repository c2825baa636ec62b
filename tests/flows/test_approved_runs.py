"""A deployed run that asks people: suspended on a real server, resumed with their answer, or answered at a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import background
from promotion_workspace import models, put_candidate, shared_store, workspace  # noqa: F401
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

from components.artifacts import write_json
from components.place import Place
from components.tracking.history import get_run
from components.tracking.registry import ModelVersion, find_version, version_at
from flows.workspace import RUNS

MADE = ("sft", "reward_model", "judge", "selection", "evaluation", "data_validation")
POOL = "people"
WORKER = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "asking"]


@pytest.fixture
def project(workspace: Path, models: Path, tiny: Tiny, store: str, monkeypatch: pytest.MonkeyPatch) -> Tiny:  # noqa: F811
    """A DVC project whose one stage makes all that promotion reads, with people asked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    write_json(Place().selection / "selection.json", {"cycle": 0, "cost": {}})
    params = tiny.folder / "params.yaml"
    text = params.read_text().replace("required: false, timeout_hours: 72", "required: true, timeout_hours: 1")
    text = text.replace("min_prompts: 30", "min_prompts: 2").replace(
        "registered_model: policy", "registered_model: people"
    )
    params.write_text(re.sub("max_response_tokens: [0-9]+", "max_response_tokens: 6", text, count=1))
    made = [f"artifacts/{name}" for name in MADE]
    copy = f"mkdir -p artifacts && cp -r {workspace}/artifacts/. artifacts && rm -rf artifacts/promotion"
    YAML().dump({"stages": {"made": {"cmd": copy, "deps": ["data/rows"], "outs": made}}}, tiny.folder / "dvc.yaml")
    with (tiny.folder / ".gitignore").open("a") as file:
        file.write("/artifacts\n")
    return tiny


@pytest.fixture
def served(project: Tiny, prefect_api: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A worker that runs the project's flow runs; gives what its commands need in the environment."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    with background([sys.executable, *WORKER], environment, REPOSITORY, tmp_path / "worker.log"):
        yield environment


def commit_candidate(project: Tiny, models: Path, number: int, gold: float) -> None:  # noqa: F811
    put_candidate(models, number, gold=gold)
    (project.folder / "data" / "rows").write_text(f"{number}\n")
    dvc = [sys.executable, "-m", "dvc", "--quiet", "add", "data"]
    subprocess.run(dvc, cwd=project.folder, check=True)
    project.commit()


def until(found: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.3)
    raise AssertionError(log.read_text()[-4000:])


@pytest.mark.timeout(900)
def test_a_deployed_run_is_suspended_until_people_answer_and_does_nothing_else_after(
    project: Tiny,
    models: Path,  # noqa: F811
    served: dict[str, str],
    tmp_path: Path,
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.exceptions import ObjectNotFound

    log = tmp_path / "worker.log"
    with get_client(sync_client=True) as client:

        def pool() -> Any:  # the worker makes it
            try:
                return client.read_work_pool(POOL)
            except ObjectNotFound:
                return None

        until(pool, log)
        deployment = client.create_deployment(
            client.create_flow_from_name("rlhf"),
            "asking",
            entrypoint="flows.rlhf.rlhf",
            work_pool_name=POOL,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}],
            enforce_parameter_schema=False,
        )

        def state_of(run: Any, *kinds: str) -> Any:
            def found() -> Any:
                state = client.read_flow_run(run.id).state
                assert state is not None
                if state.is_final() and state.type.value not in kinds:
                    raise AssertionError(f"{state!r}\n{log.read_text()[-4000:]}")
                return state if state.type.value in kinds else None

            return until(found, log)

        def start() -> Any:
            return client.create_flow_run_from_deployment(
                deployment, parameters={"repository": str(project.folder), "revision": "HEAD"}
            )

        commit_candidate(project, models, 1, 0.75)
        run = start()
        assert state_of(run, "PAUSED").name == "Suspended"
        assert list((project.folder / RUNS).iterdir()) == []  # its clone is gone
        waiting: ModelVersion = find_version("people@candidate")
        assert waiting.tags["decision"] == "awaiting approval" and version_at("people", "champion") is None
        [asked] = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key={"any_": ["approval"]}
            )
        )
        assert "proximal approve 1 --reason" in asked.data and "gold 0.250 -> 0.750" in asked.data

        (project.folder / "dvc.yaml").write_text("stages: [broken]\n")  # what is committed meanwhile does not matter
        project.commit()
        refused = client.resume_flow_run(run.id, run_input={"decision": "perhaps", "reason": "x", "by": "ada"})
        assert refused.status.value == "REJECT"
        client.resume_flow_run(run.id, run_input={"decision": "approve", "reason": "fine", "by": "ada"})
        end = state_of(run, "COMPLETED")
        assert end.name == "Approved" and "PROMOTED: people version 1 is the champion" in end.message
        champion = find_version("people@champion")
        assert champion.number == 1 and champion.tags["approval"] == "approved by ada: fine"
        pipeline = get_run(champion.tags["parent_run_id"])
        assert pipeline is not None and pipeline.tags["decision"] == "promoted" and pipeline.status == "FINISHED"

        project.git("checkout", "--quiet", "HEAD~1", "--", "dvc.yaml")
        commit_candidate(project, models, 2, 1.0)
        run = start()
        state_of(run, "PAUSED")
        command = [sys.executable, "-m", "flows.cli", "reject", "--reason", "too terse", "--by", "bob", "--json"]
        said = subprocess.run(command, cwd=project.folder, env=served, capture_output=True, text=True, check=True)
        assert json.loads(said.stdout) == {"model": "people", "version": 2, "decision": "refused"}
        end = state_of(run, "COMPLETED")
        assert end.name == "Rejected" and "rejected by bob: too terse" in end.message
        assert find_version("people@champion").number == 1


def test_a_run_at_a_terminal_ends_and_says_how_to_answer(
    project: Tiny,
    models: Path,  # noqa: F811
    run_flow: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from click.testing import CliRunner

    from flows.cli import commands

    shutil.rmtree("artifacts/promotion", ignore_errors=True)
    commit_candidate(project, models, 4, 1.0)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    state = run_flow(promotion=True)
    assert state.is_completed() and state.name == "Completed"
    verdict = state.result().ending.verdict
    assert verdict.decision == "awaiting approval" and f"`proximal approve {verdict.version}" in verdict.sentence()
    monkeypatch.chdir(project.folder)
    done = CliRunner().invoke(commands, ["approve", "--reason", "good", "--by", "eve"], standalone_mode=False)
    assert done.exception is None and f"version {verdict.version} is the champion" in done.output
    back = CliRunner().invoke(commands, ["rollback", "--to", "sft", "--reason", "no", "--by", "eve"])
    assert f"champion: people version {verdict.version} -> none" in back.output
    hand = ["promote", str(verdict.version), "--reason", "yes", "--by", "eve"]
    for given, exit_code in (("n\n", 1), ("y\n", 0)):
        asked = CliRunner().invoke(commands, hand, input=given)
        assert asked.exit_code == exit_code and "make it the champion?" in asked.output
        assert "decision        promoted" in asked.output and "rolled_back     by eve: no" in asked.output
    assert find_version("people@champion").number == verdict.version
