"""Promotion end to end: tiny real models, a real registry, hand-made records, champions really measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from promotion_workspace import GOOD_SCORER, params_named, put_candidate, versions, without_rubric
from records_by_hand import changed

from components.artifacts import read_jsonl, write_json, write_jsonl
from components.digests import digest
from components.errors import ArtifactError
from components.measuring.compare import compare
from components.measuring.metrics import GOLD, interval_text
from components.measuring.records import read_records, write_records
from components.place import Place
from components.promotion.verdict import Verdict
from components.stages import perform
from components.tracking import store as tracking_store
from components.tracking.registry import find_version, version_at


def test_the_first_candidate_meets_the_sft_policy_and_the_next_one_the_champion(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = params_named("story")
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params, Place())
    said = capsys.readouterr().out
    assert "try 1 on these" in said
    assert "against the SFT policy" in said and "0.250 -> 0.750: +0.500 [+0.500, +0.500], 95% interval" in said
    assert "the lower bound at the 97% that try 1 asks for is +0.500, above 0" in said
    assert "promoted: story version 1 is the champion" in said
    first = find_version("story@champion")
    assert first.aliases == ("candidate", "champion")
    tags = first.tags
    assert tags["policy_digest"] == digest(Place().selection / "policy")
    assert (tags["decision"], tags["reasons"], tags["opponent"]) == ("promoted", "none", "the SFT policy")
    assert (tags["candidate_gold"], tags["gain_low"], tags["kl"]) == ("0.7500", "0.5000", "2.0000")
    assert (tags["length_ratio"], tags["cycle"]) == ("1.0000", "2")
    assert tags["in:artifacts/evaluation/records.jsonl"] == digest(Place().evaluation / "records.jsonl")
    assert tags["checkpoint:artifacts/alignment/1/policy"] == "0011.dir"
    assert "checkpoint:artifacts/alignment/1/state" not in tags
    tracked = tracking_store.client().get_run(first.run_id)
    assert tracked.data.tags["decision"] == "promoted"
    assert tracked.data.metrics["promotion/gain"] == 0.5
    verdict = Verdict.read(Place().promotion)
    assert verdict.is_champion and verdict.sentence() == (
        "PROMOTED: story version 1 is the champion: gold 0.250 -> 0.750, +0.500 [+0.500, +0.500] against the SFT policy"
    )

    client = tracking_store.client()
    shown = client.get_model_version("story", "1")
    assert shown.description.startswith("Promoted against the SFT policy. [The run that decided](#/experiments/")
    assert "| Gold | 0.2500 -> 0.7500: 0.5000 [0.5000, 0.5000] |" in shown.description
    people = ("decision", "opponent", "reasons", "gain", "kl", "length_ratio", "cycle", "try", "weak_scorers")
    assert set(shown.tags) == {*people, "git_commit", "git_dirty", "digests"}
    assert "`champion`" in client.get_registered_model("story").description
    [logged] = client.search_logged_models([tracked.info.experiment_id], "name = 'story'")
    measured = {metric.key: metric.value for metric in logged.metrics}
    assert measured == {"candidate_gold": 0.75, "opponent_gold": 0.25, "gain": 0.5, "kl": 2.0, "length_ratio": 1.0}
    assert logged.tags["mlflow.modelVersions"] == '[{"name": "story", "version": 1}]'

    perform("promotion", params, Place())  # nothing new
    assert "already champion: story version 1" in capsys.readouterr().out
    verdict = Verdict.read(Place().promotion)
    assert verdict.is_champion and verdict.sentence().startswith(
        "ALREADY CHAMPION: story version 1 is this very policy"
    )
    assert versions("story") == [1]

    # The champion is measured for real now: an untrained model's answers earn less than 1.
    put_candidate(models, 2, gold=1.0)
    perform("promotion", params, Place())
    said = capsys.readouterr().out
    assert "try 2 on these" in said  # what was only told again did not count
    assert "against story version 1" in said and "promoted: story version 2 is the champion" in said
    second = find_version("story@champion")
    assert (second.number, second.tags["opponent"]) == (2, "story version 1")
    assert find_version("story@1").aliases == ()

    # Gold is never below -1, so this is no gain on any champion.
    put_candidate(models, 0, gold=-1.0)
    perform("promotion", params, Place())
    said = capsys.readouterr().out
    assert "refused: story version 3 stays a candidate" in said and "does not rise beyond its interval" in said
    assert version_at("story", "champion").number == 2  # type: ignore[union-attr]
    refused = find_version("story@candidate")
    assert (refused.number, refused.tags["decision"]) == (3, "refused")
    assert "does not rise" in refused.tags["reasons"]
    verdict = Verdict.read(Place().promotion)
    assert not verdict.is_champion and verdict.reasons == (refused.tags["reasons"],)
    assert verdict.sentence().startswith(
        f"REFUSED: story version 3 stays a candidate, because {refused.tags['reasons']} (gold "
    )
    assert verdict.sentence().endswith(" against story version 2)")

    perform("promotion", params, Place())  # on the same grounds
    assert "already refused: story version 3: gold does not rise" in capsys.readouterr().out
    why = refused.tags["reasons"]
    assert Verdict.read(Place().promotion).sentence() == (
        f"ALREADY REFUSED: story version 3 stays a candidate, because {why}; nothing was decided anew"
    )
    perform(
        "promotion", params_named("story", max_kl_nats_per_sequence=1.0), Place()
    )  # on other grounds: decided again, not registered again
    said = capsys.readouterr().out
    assert "KL to the SFT policy is 2.00 nats per sequence, above 1" in said and "try 4 on these" in said
    assert find_version("story@3").tags["try"] == "4 on these test prompts, decided at 99.8%"
    assert versions("story") == [1, 2, 3]
    asked = Place().clean / "prompts_test.jsonl"
    write_jsonl(asked, [*read_jsonl(asked), {"id": "other", "prompt": "new prompts start anew"}])
    put_candidate(models, 3, gold=-1.0)
    perform("promotion", params, Place())
    assert "try 1 on these" in capsys.readouterr().out


def test_a_refused_first_candidate_leaves_no_champion(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75, kl=7.0, response_tokens=50)
    perform("promotion", params_named("hopeless"), Place())
    assert version_at("hopeless", "champion") is None
    assert find_version("hopeless@candidate").tags["reasons"].count(";") == 1


def test_too_few_prompts_are_a_refusal_with_its_reason(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params_named("few", min_prompts=30), Place())
    assert version_at("few", "champion") is None
    assert "too few prompts to decide" in find_version("few@candidate").tags["reasons"]
    assert Verdict.read(Place().promotion).sentence() == (
        "REFUSED: few version 1 stays a candidate, because too few prompts to decide: 6, promotion.min_prompts is 30"
    )


def test_a_gain_has_one_interval_in_the_table_and_in_the_promotion(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_candidate(models, 1, gold=0.75)
    path = Place().evaluation / "records.jsonl"
    both = read_records(path)
    for policy, rows in both.items():  # two samples a prompt, and golds that do not come out even
        both[policy] = [
            changed(row, sample=sample, gold=row.number("gold") + (len(row.prompt) * (sample + 3) % 7) / 31.0)
            for row in rows
            for sample in (0, 1)
        ]
    both["candidate"] = [changed(row, gold=row.number("gold") ** 2) for row in both["candidate"]]
    write_records(path, both)
    params = params_named("one_interval")
    perform("promotion", params, Place())
    table = compare(both["sft"], both["candidate"], params.evaluation)
    gain, figures = table["difference"]["gold"], Verdict.read(Place().promotion).figures
    assert gain["low"] < gain["mean"] < gain["high"]
    assert (figures["gain"], figures["gain_low"], figures["gain_high"]) == (gain["mean"], gain["low"], gain["high"])
    assert figures["candidate_gold"] == table["candidate"]["gold"]["mean"]
    assert figures["opponent_gold"] == table["sft"]["gold"]["mean"]
    shown = interval_text(gain, GOLD, "+")
    assert f": {shown}, 95% interval" in capsys.readouterr().out
    assert shown in Verdict.read(Place().promotion).sentence()


def test_missing_records_of_a_policy_are_named(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    write_jsonl(Place().evaluation / "records.jsonl", [])
    with pytest.raises(ArtifactError, match="no records of a policy"):
        perform("promotion", params_named("empty"), Place())
    shutil.rmtree(Place().selection / "policy")
    with pytest.raises(ArtifactError, match="artifacts/selection/policy"):
        perform("promotion", params_named("empty"), Place())
    assert version_at("empty", "candidate") is None


@pytest.mark.parametrize(
    ("has_rubric", "allowed", "promoted"), [(False, False, False), (False, True, True), (True, False, True)]
)
def test_a_judge_that_loses_to_length_promotes_nothing_unless_it_may(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str], has_rubric: bool, allowed: bool, promoted: bool
) -> None:
    name = f"weak_{has_rubric}_{allowed}"
    params = params_named(name, allow_weak_judge=allowed)
    params = params if has_rubric else without_rubric(params)
    write_json(Place().judge / "metrics.json", GOOD_SCORER | {"longer_wins_accuracy_heldout": 0.8})
    put_candidate(models, 1, gold=0.75, has_rubric=has_rubric)
    perform("promotion", params, Place())
    said = capsys.readouterr().out
    weak = 'the judge is right on 70.0% of 50 comparisons of unseen prompts, less than "the longer answer wins" (80.0%)'
    assert (version_at(name, "champion") is not None) is promoted
    assert said.count(weak) == 1 and (f"  warning: {weak}" in said) is promoted
    tags = find_version(f"{name}@candidate").tags
    assert tags["weak_scorers"] == weak
    assert (weak in tags["reasons"]) is not promoted


def test_records_of_another_rubric_are_refused(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    with pytest.raises(ArtifactError, match=r"(?s)another rubric.*data\.rubric is null now"):
        perform("promotion", without_rubric(params_named("other_rubric")), Place())


def test_a_weak_reward_model_is_warned_about(workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(Place().reward_model / "metrics.json", GOOD_SCORER | {"accuracy_heldout": 0.4})
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params_named("weak_reward_model"), Place())
    said = capsys.readouterr().out
    assert "warning: the reward model is right on 40.0% of 50" in said and "promoted: " in said
