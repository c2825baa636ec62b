"""Who is champion, moved by people: back, by hand, and what becomes of a champion that is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate, versions

from components.digests import digest
from components.errors import ArtifactError, ConfigError
from components.place import Place
from components.promotion.champions import champion_of, gate_figures, promote_by_hand, require_champion, roll_back
from components.promotion.verdict import Verdict
from components.stages import perform
from components.tracking import store as tracking_store
from components.tracking.moves import block_on, moves
from components.tracking.registry import find_version, has_files, version_at


def offer(models: Path, name: str, number: int, gold: float) -> Verdict:
    put_candidate(models, number, gold=gold)
    perform("promotion", params_named(name), Place())
    return Verdict.read(Place().promotion)


def champion(name: str) -> int | None:
    found = version_at(name, "champion")
    return found.number if found else None


def test_what_is_rolled_back_is_not_crowned_again_until_somebody_promotes_it_by_hand(
    workspace: Path, models: Path
) -> None:
    assert offer(models, "back", 1, 0.75).decision == "promoted"
    assert offer(models, "back", 2, 1.0).decision == "promoted"
    bad = digest(models / "policy_2")
    assert [(move.version, move.policy_digest, move.why) for move in moves("back")] == [
        (1, digest(models / "policy_1"), "promoted"),
        (2, bad, "promoted"),
    ]
    moved = roll_back("back", None, "ada", "it insults people")
    assert moved.sentence("back") == "champion: back version 2 -> back version 1"
    assert champion("back") == 1 and find_version("back@2").tags["rolled_back"] == "by ada: it insults people"

    verdict = offer(models, "back", 2, 1.0)  # the same policy, made again
    assert not verdict.is_champion and champion("back") == 1 and versions("back") == [1, 2]
    assert verdict.sentence() == (
        "ALREADY ROLLED BACK: back version 2 stays a candidate, because the policy was rolled back as version 2 by ada "
        "(it insults people); `proximal promote` makes it champion all the same"
    )
    assert dict(gate_figures(find_version("back@2").tags))["gain"] != "not measured"  # what the gate found is kept

    tracking_store.client().delete_model_version("back", "2")  # the block outlives the version
    verdict = offer(models, "back", 2, 1.0)
    assert (verdict.decision, verdict.version, champion("back")) == ("refused", 3, 1)
    assert "rolled back as version 2 by ada" in verdict.reasons[0]

    moved = promote_by_hand("back", find_version("back@3"), "bob", "it was the prompt")
    assert (moved.before, champion("back")) == (1, 3) and block_on("back", bad) is None
    assert offer(models, "back", 2, 1.0).decision == "already champion"
    assert [(move.version, move.why) for move in moves("back")][-2:] == [(1, "rolled back"), (3, "by hand")]
    with pytest.raises(ConfigError, match="this version is the champion"):
        promote_by_hand("back", find_version("back@3"), "bob", "again")


def test_back_from_the_first_champion_there_is_none_and_a_version_may_be_named(workspace: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match="there is no champion to roll back"):
        roll_back("named", None, "ada", "none")
    offer(models, "named", 1, 0.75)
    offer(models, "named", 2, 1.0)
    for to, found in (("2", "the champion itself"), ("7", "7"), ("x", "x")):
        with pytest.raises(ConfigError, match="no such version to roll back to") as refused:
            roll_back("named", to, "ada", "typo")
        assert refused.value.found == found and "1; or sft" in refused.value.expected
    assert champion("named") == 2
    roll_back("named", "1", "ada", "worse")
    with pytest.raises(ConfigError, match="this version was rolled back itself"):
        roll_back("named", "2", "ada", "back")
    moved = roll_back("named", None, "ada", "worse, too")  # 2 is blocked, and before 1 there was none
    assert moved.now is None and champion("named") is None
    assert moved.sentence("named").endswith("none: the next candidate is held against the SFT policy")
    assert champion_of("named") is None  # people have said so
    with pytest.raises(ConfigError, match="there is no champion to roll back"):
        roll_back("named", None, "ada", "again")
    verdict = offer(models, "named", 3, 1.0)
    assert (verdict.decision, verdict.opponent) == ("promoted", "the SFT policy")


def test_a_champion_that_is_gone_is_a_question_to_people_and_not_a_new_start(workspace: Path, models: Path) -> None:
    client = tracking_store.client()
    offer(models, "lost", 1, 0.75)
    offer(models, "lost", 2, 1.0)
    client.delete_model_version("lost", "2")
    for number in (2, 4):
        with pytest.raises(ArtifactError, match="the champion is gone") as gone:
            offer(models, "lost", number, 1.0)
        assert "proximal rollback" in gone.value.do and gone.value.found == "the version was deleted"
    with pytest.raises(ArtifactError, match="the champion is gone"):
        require_champion("lost")
    assert versions("lost") == [1]
    assert roll_back("lost", None, "ada", "somebody deleted it").now.number == 1  # type: ignore[union-attr]
    assert offer(models, "lost", 2, 1.0).decision == "refused"  # the deleted champion's policy is not crowned again

    client.delete_registered_model_alias("lost", "champion")
    with pytest.raises(ArtifactError, match="the champion is gone") as gone:
        champion_of("lost")
    assert gone.value.found == "the version without the alias"
    roll_back("lost", "sft", "ada", "a new start")
    require_champion("lost")

    client.delete_registered_model("lost")  # with it goes the history: a new start
    assert moves("lost") == [] and offer(models, "lost", 2, 1.0).decision == "promoted"


def test_a_champion_without_files_is_refused_before_anything_is_paid_for(workspace: Path, models: Path) -> None:
    offer(models, "empty", 1, 0.75)
    offer(models, "empty", 2, 1.0)
    require_champion("empty")
    shutil.rmtree(Path(tracking_store.client().get_model_version_download_uri("empty", "2")) / "data")
    assert not has_files(find_version("empty@2"))
    with pytest.raises(ArtifactError, match="files of a registered model are gone") as gone:
        require_champion("empty")
    assert gone.value.where == "empty version 2" and "proximal rollback" in gone.value.do
    roll_back("empty", None, "ada", "its files are gone")
    with pytest.raises(ArtifactError, match="it cannot answer anybody"):
        promote_by_hand("empty", find_version("empty@2"), "ada", "all the same")
    assert champion("empty") == 1


def test_a_champion_of_before_moves_were_noted_is_noted_when_it_is_met(workspace: Path, models: Path) -> None:
    offer(models, "old", 1, 0.75)
    client = tracking_store.client()
    for key in client.get_registered_model("old").tags:
        client.delete_registered_model_tag("old", key)
    assert moves("old") == []
    offer(models, "old", 2, 1.0)
    assert [(move.version, move.why) for move in moves("old")] == [(1, "found"), (2, "promoted")]
    assert roll_back("old", None, "ada", "worse").now.number == 1  # type: ignore[union-attr]
