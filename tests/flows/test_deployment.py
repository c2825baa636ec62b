"""The project as a service: real servers, a real worker, everything registered once, runs by event and by schedule."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from service import send
from tiny_project import REPOSITORY, Tiny
from whole_service import Whole, wholly_served

from flows.rlhf import IDLE
from flows.workspace import RUNS

PAIRS = [{"prompt": f"ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(60)]


@pytest.fixture
def service(tiny: Tiny, prefect_database: Path, tmp_path: Path) -> Iterator[Whole]:
    (tiny.folder / "data" / "rows").unlink()
    (tiny.folder / "data" / "shipped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    tiny.stages(a={"needs": ["data/shipped.jsonl"]}, b={"needs": ["a"]})
    tiny.dvc("add", "--quiet", "data")
    with wholly_served(tiny, prefect_database, tmp_path / "home") as own:
        yield own


@pytest.mark.timeout(1800)
def test_a_project_is_served_from_its_registration_to_the_end(service: Whole, tmp_path: Path) -> None:
    tiny = service.tiny
    # Everything is registered, and again it is the same.
    before = _registered(service)
    whole = ("rlhf", "continue", "evaluate", "compare")
    pools = {name: each["pool"] for name, each in before["deployments"].items()}
    assert pools == {**dict.fromkeys(whole, "cpu"), "stage": "gpu"}
    assert {before["deployments"][name]["collision"] for name in whole} == {"ENQUEUE"}
    assert {before["deployments"][name]["repository"] for name in whole} == {str(tiny.folder)}
    assert before["deployments"]["rlhf"]["schedules"] == ["0 3 * * *"]
    assert before["pools"] == {"cpu", "gpu"} and before["limits"] == {"gpu": 1}
    assert len(before["automations"]) == 2 and any("silent" in name for name in before["automations"].values())
    send("PATCH", f"{service.api}/v2/concurrency_limits/gpu", {"limit": 8})  # as somebody has who has 8 GPUs
    told = json.loads(service.proximal("deploy", "--json"))
    assert _registered(service) == {**before, "limits": {"gpu": 8}}
    assert "cron 0 3 * * * Etc/UTC" in told["deployments"][0]["schedules"]

    # An event starts a run; what follows without news ends as such, and leaves nothing in MLflow.
    promotion = before["deployments"]["rlhf"]["id"]
    send("PATCH", f"{service.api}/deployments/{promotion}", {"parameters": _parameters(service) | {"promotion": False}})
    service.announce()
    first = service.ended_run(1)
    assert (first["state_type"], first["state_name"]) == ("COMPLETED", "Completed"), first["state"]["message"]
    assert tiny.began() == ["a", "b"] and service.pipelines() == 1
    service.announce()
    second = service.ended_run(2)
    assert (second["state_type"], second["state_name"]) == ("COMPLETED", IDLE), second["state"]["message"]
    assert "policy has no champion yet" in second["state"]["message"]
    assert tiny.began() == ["a", "b"] and service.pipelines() == 1

    # Rows that are new are an event of their own; the same rows again are none.
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"prompt": "another", "chosen": "good", "rejected": "bad"}) + "\n")
    tiny.git("config", "user.name", "Test")
    tiny.git("config", "user.email", "test@localhost")
    assert "told http" in service.proximal("data", "add", str(more), "--to", "shipped.jsonl")
    third = service.ended_run(3)
    assert (third["state_type"], third["state_name"]) == ("COMPLETED", "Completed"), third["state"]["message"]
    assert tiny.began() == ["a", "b", "a"] and service.pipelines() == 2  # what `a` wrote is as it was
    assert "nothing is new" in service.proximal("data", "add", str(more), "--to", "shipped.jsonl")

    # The nightly runs are there already; one that is due in seconds starts by itself.
    deployment = service.deployments()["rlhf"]
    nightly = [each for each in service.runs("SCHEDULED") if each["deployment_id"] == deployment["id"]]
    assert {datetime.fromisoformat(found["expected_start_time"]).hour for found in nightly} == {3}
    schedules = f"deployments/{deployment['id']}/schedules"
    send("DELETE", f"{service.api}/{schedules}/{deployment['schedules'][0]['id']}")  # three are planned ahead, no more
    soon = {"interval": 20, "anchor_date": datetime.now(UTC).isoformat()}
    service.post(schedules, [{"schedule": soon, "active": True}])
    scheduled = service.ended_run(4)
    assert scheduled["auto_scheduled"] and scheduled["state_name"] == IDLE
    assert service.pipelines() == 2

    # It ends with all that it started, a run at work included.
    send("DELETE", f"{service.api}/{schedules}/{service.deployments()['rlhf']['schedules'][0]['id']}")
    service.wait(lambda: not service.runs("RUNNING", "PENDING"), "the end of the last run")
    assert list((tiny.folder / RUNS).iterdir()) == []
    tiny.stages(a={"needs": ["data/shipped.jsonl"], "seconds": 600})
    tiny.commit()
    service.announce()
    service.wait(lambda: tiny.began() == ["a", "b", "a", "a"], "a run at work")
    status, seconds, left = service.end(signal.SIGTERM)
    assert status == 128 + signal.SIGTERM and left == []
    assert seconds < 15.0


def test_no_name_of_a_state_is_taken_for_silence() -> None:
    """Events have the names of states: one that the automation does not expect ends as crashed two minutes later."""
    from flows.approval import APPROVED, ASKED, REJECTED
    from flows.outcome import REFUSED

    (automation,) = YAML(typ="safe").load(REPOSITORY / "infra" / "automations.yaml")["automations"]
    names = {IDLE, REFUSED, ASKED, APPROVED, REJECTED, "Suspended", "Completed", "Failed", "Crashed", "Cancelled"}
    assert {f"prefect.flow-run.{name}" for name in names} <= set(automation["trigger"]["expect"])


def _parameters(service: Whole) -> dict[str, Any]:
    return dict(service.deployments()["rlhf"]["parameters"])


def _registered(service: Whole) -> dict[str, Any]:
    deployments = {
        name: {
            "id": each["id"],
            "pool": each["work_pool_name"],
            "collision": (each["concurrency_options"] or {}).get("collision_strategy"),
            "repository": each["parameters"].get("repository"),
            "schedules": [schedule["schedule"]["cron"] for schedule in each["schedules"]],
        }
        for name, each in service.deployments().items()
    }
    automations = service.post("automations/filter", {})
    limits = service.post("v2/concurrency_limits/filter", {})
    names = sorted(each["name"] for each in automations)
    return {
        "deployments": deployments,
        "pools": {each["name"] for each in service.post("work_pools/filter", {})},
        # Those of the deployments are Prefect's own.
        "limits": {each["name"]: each["limit"] for each in limits if not each["name"].startswith("deployment:")},
        "automations": dict(enumerate(names)),
    }
