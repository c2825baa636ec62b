"""What the gate would promote waits for people, where params say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate, versions

from components.config import Params
from components.errors import ArtifactError, ConfigError
from components.place import Place
from components.promotion.approval import UNTIL, answer
from components.promotion.champions import roll_back
from components.promotion.verdict import Verdict
from components.stages import perform
from components.tracking import start_pipeline_run
from components.tracking import store as tracking_store
from components.tracking.history import get_run
from components.tracking.registry import find_version, set_tags, version_at
from components.tracking.runs import PARENT_VARIABLE


def asking(name: str) -> Params:
    params = params_named(name)
    approval = params.orchestration.approval.model_copy(update={"required": True, "timeout_hours": 2.0})
    return params.model_copy(update={"orchestration": params.orchestration.model_copy(update={"approval": approval})})


def offer(models: Path, params: Params, number: int, gold: float) -> Verdict:
    put_candidate(models, number, gold=gold)
    perform("promotion", params, Place())
    return Verdict.read(Place().promotion)


def test_a_candidate_that_passed_waits_for_an_answer_and_every_place_tells_it(
    workspace: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = asking("asked")
    assert offer(models, params, 1, -1.0).decision == "refused"  # the gate speaks first: nobody is asked
    assert "approval" not in find_version("asked@1").tags

    parent = start_pipeline_run(params, "", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    before = datetime.now(UTC)
    verdict = offer(models, params, 2, 0.75)
    assert verdict.decision == "awaiting approval" and verdict.is_asked and not verdict.is_champion
    assert verdict.sentence().startswith(
        "AWAITING APPROVAL: asked version 2 passed the gate and is no champion yet: gold 0.250 -> 0.750, +0.500 "
        "[+0.500, +0.500] against the SFT policy; `proximal approve 2 --reason ...`"
    )
    assert "awaiting approval: asked version 2 passed the gate" in capsys.readouterr().out
    assert version_at("asked", "champion") is None
    until = datetime.fromisoformat(find_version("asked@2").tags[UNTIL])
    assert timedelta(hours=2) <= until - before < timedelta(hours=2, minutes=5)
    assert "Awaiting approval: asked version 2 passed the gate" in (Place().promotion / "report.html").read_text()

    monkeypatch.delenv(PARENT_VARIABLE)
    assert offer(models, params, 2, 0.75).decision == "already awaiting approval"  # nothing is decided anew
    waiting = find_version("asked@2")
    with pytest.raises(ConfigError, match="nobody is asked about this version"):
        answer(find_version("asked@1"), approved=True, by="ada", reason="x")
    approved = answer(waiting, approved=True, by="ada", reason="read fifty answers")
    assert approved.sentence().startswith("PROMOTED: asked version 2 is the champion: gold 0.250 -> 0.750")
    champion = find_version("asked@champion")
    assert champion.number == 2 and champion.tags["decision"] == "promoted"
    assert champion.tags["approval"] == "approved by ada: read fifty answers"
    for run in (parent, champion.tags["promotion_run_id"]):
        told = get_run(run)
        assert told is not None and told.tags["decision"] == "promoted"
        assert told.tags["verdict"] == approved.sentence() and told.tags["approval"] == champion.tags["approval"]
    shown = tracking_store.client().get_model_version("asked", "2").description
    assert shown.startswith("Promoted against the SFT policy.") and "Approval: approved by ada" in shown
    with pytest.raises(ConfigError, match="nobody is asked about this version"):
        answer(find_version("asked@2"), approved=False, by="bob", reason="late")
    assert offer(models, params, 2, 0.75).decision == "already champion"


def test_a_rejected_candidate_stays_one_and_is_not_asked_about_on_the_same_grounds(
    workspace: Path, models: Path
) -> None:
    params = asking("rejected")
    offer(models, params, 1, 0.75)
    rejected = answer(find_version("rejected@1"), approved=False, by="bob", reason="too terse")
    assert rejected.sentence().startswith(
        "REFUSED: rejected version 1 stays a candidate, because rejected by bob: too terse"
    )
    assert version_at("rejected", "champion") is None
    again = offer(models, params, 1, 0.75)
    assert (again.decision, again.reasons) == ("already refused", ("rejected by bob: too terse",))


def test_no_answer_in_time_leaves_it_unpromoted_and_the_next_run_asks_again(workspace: Path, models: Path) -> None:
    params = asking("late")
    offer(models, params, 1, 0.75)
    past = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)
    set_tags(find_version("late@1"), {UNTIL: past.isoformat()})
    with pytest.raises(ConfigError, match="the time to answer is over") as over:
        answer(find_version("late@1"), approved=True, by="ada", reason="yes")
    assert over.value.found == "asked until 2020-01-02 03:04 UTC" and version_at("late", "champion") is None
    assert offer(models, params, 1, 0.75).decision == "awaiting approval"
    assert versions("late") == [1] and find_version("late@1").tags["try"].startswith("1 on")  # not decided anew
    answer(find_version("late@1"), approved=True, by="ada", reason="yes")
    assert find_version("late@champion").number == 1


def test_an_answer_does_not_dethrone_a_champion_that_the_candidate_was_not_compared_with(
    workspace: Path, models: Path
) -> None:
    params = asking("changed")
    offer(models, params, 1, 0.75)
    answer(find_version("changed@1"), approved=True, by="ada", reason="yes")
    offer(models, params, 2, 1.0)
    roll_back("changed", "sft", "ada", "a fault was found")
    with pytest.raises(ArtifactError, match="the champion changed while the candidate was asked about"):
        answer(find_version("changed@2"), approved=True, by="ada", reason="yes")
    assert version_at("changed", "champion") is None
