"""A deployed run that is cancelled, or loses its worker or its process: nothing is left, and all records say so."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest
import small_world
from ruamel.yaml import YAML
from service import ENDED, Bare, served, wait_until
from tiny_project import Tiny, is_running, longest_s

from components.tracking import store


def processes_of(service: Bare) -> list[psutil.Process]:
    """Everything below a run of the service: a stage and whatever it started, by what the flow tells its stages."""
    found = []
    for process in psutil.process_iter():
        try:
            of_it = process.environ()
            if of_it.get("PREFECT_HOME") == str(service.home) and "PREFECT__FLOW_RUN_ID" in of_it:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [one for one in found if is_running(one.pid)]


def begun(service: Bare, tiny: Tiny, deployment: str, stages: int) -> str:
    """A new run, once its stage, the given one since the start, is at work; gives its id."""
    run = service.start_run(deployment)
    wait_until(lambda: len(tiny.began()) == stages, service.home / "worker.log")
    assert len(processes_of(service)) >= 4  # the flow, a supervisor, DVC, the stage
    return run


def require_ended(service: Bare, tiny: Tiny, run: str, state: str, seconds: float) -> None:
    since = time.monotonic()
    while left := processes_of(service):
        assert time.monotonic() - since < seconds, [one.cmdline() for one in left]
        time.sleep(0.1)
    log = service.home / "worker.log"
    wait_until(lambda: service.state(run)["type"] not in ("RUNNING", "CANCELLING"), log)
    assert service.state(run)["type"] == state
    parent = tiny.log()[-1]["parent_run"]
    wait_until(lambda: store.client().get_run(parent).info.status != "RUNNING", log, seconds=30)
    assert store.client().get_run(parent).info.status == "KILLED"


@pytest.mark.timeout(900)
def test_nothing_is_left_of_a_run_that_was_ended(tiny: Tiny, prefect_database: Path, tmp_path: Path) -> None:
    tiny.stages(a={"seconds": 600, "detached_child": True})
    tiny.commit()
    with served(prefect_database, tmp_path / "home", TINY_LOG=str(tiny.folder / "log.jsonl")) as service:
        deployment = service.deploy(repository=str(tiny.folder), revision="HEAD", promotion=False)
        worker = service.worker()
        try:
            run = begun(service, tiny, deployment, 1)
            cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}  # as the button of Prefect's page does
            service.post(f"flow_runs/{run}/set_state", cancel)
            require_ended(service, tiny, run, "CANCELLED", longest_s())

            run = begun(service, tiny, deployment, 2)
            worker.kill()
            require_ended(service, tiny, run, "CRASHED", longest_s())
        finally:
            worker.kill()
            worker.wait()
            for process in processes_of(service):
                process.kill()


@pytest.mark.timeout(900)
def test_the_run_after_one_that_lost_its_worker_goes_on_from_there(prefect_database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    world = small_world.make_world(folder)
    file = folder / "dvc.yaml"
    stages = YAML(typ="safe").load(file)["stages"]
    YAML().dump({"stages": {name: stages[name] for name in ("data_validation", "sft")}}, file)
    world.commit()
    tracking = f"sqlite:///{folder}/mlflow.db"
    with served(prefect_database, tmp_path / "home", MLFLOW_TRACKING_URI=tracking) as service:
        deployment = service.deploy(repository=str(folder), revision="HEAD", promotion=False)
        log = service.home / "worker.log"

        worker = service.worker()
        try:
            killed = service.start_run(deployment)
            work = folder / ".work" / "runs" / killed / ".work"
            wait_until(lambda: any(work.glob("sft-*/curve.json")), log)
            worker.kill()
            since = time.monotonic()
            while left := processes_of(service):
                assert time.monotonic() - since < longest_s(), [one.cmdline() for one in left]
                time.sleep(0.1)
            (curve,) = work.glob("sft-*/curve.json")
            done = len(json.loads(curve.read_text()))
            wait_until(lambda: service.state(killed)["type"] not in ("RUNNING", "CANCELLING"), log)
            assert service.state(killed)["type"] == "CRASHED"

            worker.wait()
            worker = service.worker()
            again = service.start_run(deployment)
            wait_until(lambda: service.state(again)["type"] in ENDED, log)
            assert service.state(again)["type"] == "COMPLETED", log.read_text()
        finally:
            worker.kill()
            worker.wait()
            for process in processes_of(service):
                process.kill()
    said = log.read_text()
    assert f"sft: goes on after step {done}\n" in said, said
    assert said.count("data_validation' - ran,") == 1 and "data_validation' - restored" in said, said
    assert not (folder / ".work" / "runs" / again).exists()
