"""Stages on another pool, with real servers and a worker in a clone and with a DVC cache of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import small_world
from loopback import background, server, wait_until
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny, run_command

from components.digests import tree_digests
from flows.deploy import deploy

BUCKET = "hand-over"
PREFECT = [sys.executable, "-m", "prefect"]
DVC = [sys.executable, "-m", "dvc"]
CLI = [sys.executable, "-m", "flows.cli"]


@dataclass(frozen=True)
class Team:
    """What a team has: servers, whose addresses stand in the environment of its machines, and an origin for each test.

    Args:
        environment: of every process.
        s3: the address of the object store.
        folder: of logs and databases.
    """

    environment: dict[str, str]
    s3: str
    folder: Path

    def project(self, folder: Path, pools: dict[str, str]) -> None:
        """Commit a folder with dvc.yaml, params.yaml and data/ as the origin of a project whose data is pushed."""
        params = YAML().load(folder / "params.yaml")
        params["orchestration"] |= {"pools": pools, "hand_over_remote": "team"}
        YAML().dump(params, folder / "params.yaml")
        for command in (
            ["remote", "add", "--default", "data", str(folder.parent / "data-remote")],
            ["remote", "add", "team", f"s3://{BUCKET}/{folder.parent.name}"],
            ["remote", "modify", "team", "endpointurl", self.s3],
            ["add", "--quiet", "data"],
            ["push", "--quiet"],
        ):
            self.run(*DVC, *command, folder=folder)
        Tiny(folder).commit()

    def run(self, *command: str, folder: Path, **variables: str) -> str:
        """Run a command to its end; it succeeds."""
        done = subprocess.run(
            command, cwd=folder, env=self.environment | variables, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def worker(self, pool: str, clone: Path, **variables: str) -> Iterator[Path]:
        """A machine's worker; gives its log."""
        log = clone.parent / f"{clone.name}.log"
        command = [*PREFECT, "worker", "start", "--pool", pool, "--name", clone.name, "--limit", "1"]
        own = self.environment | {"PROXIMAL_REPOSITORY": str(clone)} | variables
        with background(command, own, clone.parent, log):
            yield log

    def children(self, client: SyncPrefectClient, parent: str) -> list[FlowRun]:
        """The flow runs of stages that a run has sent to a pool."""
        return [run for run in client.read_flow_runs() if str(run.idempotency_key).startswith(f"{parent} ")]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Team]:
    """Prefect, MLflow on HTTP, an object store, the pools, and the deployments of infra/prefect.yaml on them."""
    home = tmp_path_factory.mktemp("team")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_API_URL": prefect_api,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    store = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    mlflow = ["mlflow", "server", "--host", "127.0.0.1", "--port", "PORT", "--workers", "1", *store]
    python = [sys.executable, "-m"]
    with (
        server([*python, "moto.server", "-H", "127.0.0.1", "-p", "PORT"], environment, home, "/moto-api/") as s3,
        server([*python, *mlflow], environment, home, "/health") as tracking,
    ):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=s3, **keys).create_bucket(Bucket=BUCKET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_URL", prefect_api)
            deploy(REPOSITORY)
        yield Team(environment | {"MLFLOW_TRACKING_URI": tracking}, s3, home)


@pytest.fixture
def client(team: Team) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def clone(origin: Path, name: str) -> Path:
    """A machine's clone, with a DVC cache of its own."""
    folder = origin.parent / name
    run_command("git", "clone", "--quiet", str(origin), str(folder), folder=origin.parent)
    return folder


def flow_run_in(output: str) -> str:
    """The id of the flow run of a stage that a run tells of."""
    found = re.search(r"runs on pool gpu as flow run .* \(([0-9a-f-]{36})\)", output)
    assert found, output
    return found[1]


def test_the_result_comes_back_by_the_run_cache_and_is_found_there_by_others(team: Team, tiny: Tiny) -> None:
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"], "prints": ["step 1 of 1\n"]}, c={"needs": ["b"]})
    team.project(tiny.folder, {"b": "gpu"})
    here, there = clone(tiny.folder, "here"), clone(tiny.folder, "there")
    run = (*CLI, "run", "--no-promotion", "--json")
    with team.worker("gpu", there, TINY_LOG=str(there / "log.jsonl")):
        told = json.loads(team.run(*run, "--set", "seed=7", folder=here))
        assert told["stages"] == {"data.dvc": "unchanged", "a": "ran", "b": "ran", "c": "ran"}
    assert Tiny(there).began() == ["b"]  # and it did not bring the data, which b does not read
    assert not (there / "data").exists() and list((there / ".work" / "runs").iterdir()) == []
    assert {entry["parent_run"] for entry in Tiny(there).log()} == {told["run_id"]}

    # No worker is there now. What others have made is restored, whoever asks, without one.
    other = clone(tiny.folder, "other")
    (other / "params.yaml").write_text((other / "params.yaml").read_text().replace("\nseed: 1\n", "\nseed: 7\n"))
    Tiny(other).commit()
    (other / "b.out").write_text("of another run")
    told = json.loads(team.run(*run, folder=other))
    assert told["stages"] == {"data.dvc": "unchanged", "a": "ran", "b": "restored", "c": "ran"}
    assert (other / "b.out").read_text() == "b" + (other / "params.yaml").read_text()
    assert not list((here.parent / "data-remote").rglob("runs"))  # the other remote has data and figures alone


def test_what_goes_wrong_there_is_told_here(team: Team, tiny: Tiny) -> None:
    message = "error: a loss is not finite\n  where:      step 3\n  found:      nan\n"
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"], "status": 2, "prints": ["begins\n", message]})
    team.project(tiny.folder, {"b": "gpu"})
    here, there = clone(tiny.folder, "here"), clone(tiny.folder, "there")
    with team.worker("gpu", there):
        refused = _refused(team, here)
        assert refused.endswith("error: stage b: a loss is not finite\n  where:      step 3\n  found:      nan\n")
        assert "begins" in refused
        (here / "stage.py").write_text((here / "stage.py").read_text() + "# changed\n")
        assert "stage.py" in (changed := _refused(team, here)) and "commit and `git push`" in changed
        commit = Tiny(here).commit()
        unknown = _refused(team, here)
        assert f"found:      {commit}" in unknown and "`git push`" in unknown


def _refused(team: Team, folder: Path) -> str:
    command = [*CLI, "run", "--no-promotion"]
    done = subprocess.run(command, cwd=folder, env=team.environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_killed_run_leaves_nothing_there(team: Team, tiny: Tiny, client: SyncPrefectClient) -> None:
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"], "seconds": 600})
    team.project(tiny.folder, {"b": "gpu"})
    here, there = clone(tiny.folder, "here"), clone(tiny.folder, "there")
    with team.worker("gpu", there, TINY_LOG=str(there / "log.jsonl")) as log, (here / "out").open("w") as out:
        run = subprocess.Popen([*CLI, "run", "--no-promotion"], cwd=here, env=team.environment, stdout=out, stderr=out)
        try:
            wait_until(lambda: Tiny(there).began() == ["b"], "the stage there", log)
        finally:
            run.send_signal(signal.SIGKILL)
            run.wait()
        wait_until(lambda: not _at_work(Tiny(there).log()[0]["pid"]), "its end", log)
        child = flow_run_in((here / "out").read_text())
        wait_until(lambda: _state(client, child).is_final(), "its state", log)
        assert _state(client, child).type.value == "CANCELLED"


def _at_work(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _state(client: SyncPrefectClient, run: str) -> Any:
    return client.read_flow_run(run).state  # type: ignore[arg-type]


@pytest.mark.timeout(1800)
def test_a_cycle_on_another_pool_makes_the_bytes_of_one_machine(
    team: Team, tmp_path: Path, client: SyncPrefectClient
) -> None:
    origin = tmp_path / "origin"
    small_world.make_world(origin)
    team.project(origin, {"alignment": "gpu"})
    cpu, gpu, alone = (clone(origin, name) for name in ("cpu", "gpu", "alone"))
    with team.worker("cpu", cpu) as log, team.worker("gpu", gpu):
        deployment = client.read_deployment_by_name("rlhf/rlhf").id
        run = client.create_flow_run_from_deployment(deployment, parameters={"repository": str(cpu)})
        wait_until(lambda: _state(client, str(run.id)).is_final(), "the end of the run", log)
        (child,) = team.children(client, str(run.id))
    assert _state(client, str(run.id)).is_completed(), _state(client, str(run.id)).message
    assert child.name.startswith("alignment@1 of ppo seed 1 ") and child.state and child.state.name == "Ran"

    # On one machine, without pools, servers and workers.
    store = f"sqlite:///{alone}/mlflow.db"
    team.run(*DVC, "pull", "--quiet", "data.dvc", folder=alone)
    team.run(*DVC, "repro", folder=alone, MLFLOW_TRACKING_URI=store)
    # The run's own clone is gone: what it made is in the cache of its machine.
    team.run(*DVC, "pull", "--quiet", "data.dvc", folder=cpu)
    assert "Running stage" not in team.run(*DVC, "repro", folder=cpu)
    assert (cpu / "dvc.lock").read_bytes() == (alone / "dvc.lock").read_bytes()
    assert _by_name(cpu / "artifacts") == _by_name(alone / "artifacts")

    found = json.loads(team.run(*CLI, "lineage", "policy@1", "--json", folder=cpu))
    assert {run["name"] for run in found["runs"]} == {
        *("promotion", "evaluation", "selection", "alignment 1", "judge", "reward_model", "sft", "data_validation")
    }
    assert not any(run["broken"] for run in found["runs"])
    assert {Path(file["path"]).stem for run in found["runs"] for file in run["raw_files"]} == set(small_world.ROWS)


def _by_name(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): digest for path, digest in tree_digests(folder).items()}
