"""Promotion end to end: tiny real models, a real registry, hand-made records, champions really measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from records_by_hand import RUBRIC, record, without

from components import paths
from components.artifacts import write_json, write_jsonl
from components.config import Params, load_params
from components.data.rows import Prompt
from components.digests import digest
from components.errors import ArtifactError
from components.measuring.measure import TEST_STREAM, measure_policy
from components.measuring.metrics import JUDGE
from components.measuring.records import prompt_means, read_records, write_records
from components.models.loading import (
    new_policy,
    new_scalar_model,
    save_best_of_n,
    save_policy,
    save_scalar_model,
)
from components.models.text import Codec, TextFormat, train_tokenizer
from components.promotion.champion import measure_champion
from components.promotion.run import TEST_PROMPTS, run
from components.tracking import store as tracking_store
from components.tracking.registry import find_version, version_at
from components.tracking.runs import PARENT_VARIABLE

ROOT = Path(__file__).resolve().parents[3]
FAULTS = {
    "printer": "does not start",
    "router": "gets very hot",
    "screen": "stays dark",
    "keyboard": "freezes often",
    "scanner": "is very slow",
    "laptop": "does not charge",
}
GOOD_SCORER = {"accuracy_heldout": 0.7, "longer_wins_accuracy_heldout": 0.6, "comparisons_heldout": 50}
PLAIN = {"kind": "known", "response_tokens": 5, "kl": 2.0}
PROMPTS = [f"my {device} {fault} . what can i do ?" for device, fault in FAULTS.items()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders policy_0..4 (3 with another tokenizer, 4 the best of 2 of 1), reward_model and judge."""
    folder = tmp_path_factory.mktemp("models")
    params = load_params(ROOT / "params.yaml")
    scratch = {
        "vocabulary_size": 300,
        "hidden_size": 16,
        "intermediate_size": 16,
        "layers": 1,
        "attention_heads": 1,
    }
    config = params.language_model.model_copy(
        update={"scratch": params.language_model.scratch.model_copy(update=scratch), "max_response_tokens": 6}
    )
    text_format = TextFormat(config.prompt_template, config.max_prompt_tokens, config.max_response_tokens)
    tokenizers = [train_tokenizer(PROMPTS, 300), train_tokenizer(["xyzzy xyzzy plugh plugh"] * 9, 290)]
    for number in range(4):
        codec = Codec(tokenizers[number == 3], text_format)
        ids = {
            "pad_token_id": codec.pad_id,
            "eos_token_id": codec.eos_id,
            "bos_token_id": int(codec.tokenizer.bos_token_id),
        }
        policy = new_policy(config, len(codec.tokenizer), ids, seed=number)
        save_policy(policy, codec, folder / f"policy_{number}")
    for seed, name in enumerate(("reward_model", "judge")):
        save_scalar_model(new_scalar_model(folder / "policy_0", seed), folder / name)
    save_best_of_n(folder / "policy_1", folder / "reward_model", 2, folder / "policy_4")
    return folder


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def workspace(shared_store: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the outputs of all earlier stages; policy_0 is the SFT policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared_store / 'mlflow.db'}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    shutil.copytree(models / "policy_0", paths.SFT / "policy")
    shutil.copytree(models / "reward_model", paths.REWARD_MODEL / "model")
    shutil.copytree(models / "judge", paths.JUDGE / "model")
    for folder in (paths.REWARD_MODEL, paths.JUDGE):
        write_json(folder / "metrics.json", GOOD_SCORER)
    write_json(paths.SELECTION / "selection.json", {"cycle": 2})
    write_jsonl(TEST_PROMPTS, [{"id": str(number), "prompt": prompt} for number, prompt in enumerate(PROMPTS)])
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  alignment@1:\n    cmd: x\n    outs:\n"
        "    - path: artifacts/alignment/1/policy\n      md5: 0011.dir\n"
        "    - path: artifacts/alignment/1/state\n      md5: 2233.dir\n"
    )
    return tmp_path


def params_named(name: str, min_prompts: int = 2, **promotion: float) -> Params:
    """The shipped params, small, with a registered model of the test's own."""
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(
        update={
            "promotion": params.promotion.model_copy(
                update={"registered_model": name, "min_prompts": min_prompts} | promotion
            ),
            "language_model": params.language_model.model_copy(update={"max_response_tokens": 6}),
        }
    )


def put_candidate(models: Path, number: int, gold: float, has_rubric: bool = True, **columns: Any) -> None:
    """Make policy_<number> the candidate, with records that say `gold` for it and 0.25 for SFT."""
    shutil.rmtree(paths.SELECTION / "policy", ignore_errors=True)
    shutil.copytree(models / f"policy_{number}", paths.SELECTION / "policy")
    records = {
        policy: [
            record(f"p{prompt_number}", **known, prompt=prompt, judge=value, gold=value)
            for prompt_number, prompt in enumerate(PROMPTS)
        ]
        for policy, value, known in (("sft", 0.25, PLAIN), ("candidate", gold, PLAIN | columns))
    }
    if not has_rubric:
        records = {policy: without(rows, *RUBRIC) for policy, rows in records.items()}
    write_records(paths.EVALUATION / "records.jsonl", records)


def without_rubric(params: Params) -> Params:
    return params.model_copy(update={"data": params.data.model_copy(update={"rubric": None})})


def versions(name: str) -> list[Any]:
    found = tracking_store.client().search_model_versions(f"name = '{name}'")
    return sorted(int(version.version) for version in found)


def test_the_first_candidate_meets_the_sft_policy_and_the_next_one_the_champion(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = params_named("story")
    put_candidate(models, 1, gold=0.75)
    run(params)
    said = capsys.readouterr().out
    assert "try 1 on these" in said
    assert "against the SFT policy" in said and "0.250 -> 0.750: +0.500, 97% interval [+0.500, +0.500]" in said
    assert "promoted: story version 1 is the champion" in said
    first = find_version("story@champion")
    assert first.aliases == ("candidate", "champion")
    tags = first.tags
    assert tags["policy_digest"] == digest(paths.SELECTION / "policy")
    assert (tags["decision"], tags["reasons"], tags["opponent"]) == ("promoted", "none", "the SFT policy")
    assert (tags["candidate_gold"], tags["gain_low"], tags["kl"]) == ("0.7500", "0.5000", "2.0000")
    assert (tags["length_ratio"], tags["cycle"]) == ("1.0000", "2")
    assert tags["in:artifacts/evaluation/records.jsonl"] == digest(paths.EVALUATION / "records.jsonl")
    assert tags["checkpoint:artifacts/alignment/1/policy"] == "0011.dir"
    assert "checkpoint:artifacts/alignment/1/state" not in tags
    tracked = tracking_store.client().get_run(first.run_id)
    assert tracked.data.tags["decision"] == "promoted"
    assert tracked.data.metrics["promotion/gain"] == 0.5

    run(params)  # nothing new
    assert "already champion: story version 1" in capsys.readouterr().out
    assert versions("story") == [1]

    # The champion is measured for real now: an untrained model's answers earn less than 1.
    put_candidate(models, 2, gold=1.0)
    run(params)
    said = capsys.readouterr().out
    assert "try 2 on these" in said  # what was only told again did not count
    assert "against story version 1" in said and "promoted: story version 2 is the champion" in said
    second = find_version("story@champion")
    assert (second.number, second.tags["opponent"]) == (2, "story version 1")
    assert find_version("story@1").aliases == ()

    # Gold is never below -1, so this is no gain on any champion.
    put_candidate(models, 0, gold=-1.0)
    run(params)
    said = capsys.readouterr().out
    assert "refused: story version 3 stays a candidate" in said and "does not rise beyond its interval" in said
    assert version_at("story", "champion").number == 2  # type: ignore[union-attr]
    refused = find_version("story@candidate")
    assert (refused.number, refused.tags["decision"]) == (3, "refused")
    assert "does not rise" in refused.tags["reasons"]

    run(params)  # on the same grounds
    assert "already refused: story version 3: gold does not rise" in capsys.readouterr().out
    run(params_named("story", max_kl_nats_per_sequence=1.0))  # on other grounds: decided again, not registered again
    said = capsys.readouterr().out
    assert "KL to the SFT policy is 2.00 nats per sequence, above 1" in said and "try 4 on these" in said
    assert find_version("story@3").tags["try"] == "4 on these test prompts, decided at 99.8%"
    assert versions("story") == [1, 2, 3]
    write_jsonl(TEST_PROMPTS, [{"id": "other", "prompt": "new prompts start anew"}])
    put_candidate(models, 3, gold=-1.0)
    run(params)
    assert "try 1 on these" in capsys.readouterr().out


def test_a_champion_with_another_tokenizer_is_compared_by_its_text(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = params_named("tokenizers")
    put_candidate(models, 3, gold=1.0)
    run(params)
    for has_rubric, name in ((True, "gold"), (False, "judge")):
        changed = params if has_rubric else without_rubric(params)
        put_candidate(
            models, 1, gold=100.0, kl=99.0, has_rubric=has_rubric
        )  # too far from SFT, so that policy_3 stays champion
        run(changed)
        said = capsys.readouterr().out
        assert f"  {name}" in said and "against tokenizers version 1" in said
        assert "does not rise" not in said and "KL to the SFT policy is 99.00" in said


def test_a_refused_first_candidate_leaves_no_champion(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75, kl=7.0, response_tokens=50)
    run(params_named("hopeless"))
    assert version_at("hopeless", "champion") is None
    assert find_version("hopeless@candidate").tags["reasons"].count(";") == 1


def test_too_few_prompts_are_a_refusal_with_its_reason(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    run(params_named("few", min_prompts=30))
    assert version_at("few", "champion") is None
    assert "too few prompts to decide" in find_version("few@candidate").tags["reasons"]


def test_a_champion_whose_files_are_gone_is_named_and_nothing_is_registered(
    workspace: Path, models: Path, shared_store: Path
) -> None:
    params = params_named("gone")
    put_candidate(models, 1, gold=0.75)
    run(params)
    source = tracking_store.client().get_model_version_download_uri("gone", "1")
    assert Path(source).is_relative_to(shared_store)
    shutil.rmtree(source)
    put_candidate(models, 2, gold=0.75)
    with pytest.raises(ArtifactError, match="gone version 1"):
        run(params)
    assert versions("gone") == [1]


def test_missing_records_of_a_policy_are_named(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    write_jsonl(paths.EVALUATION / "records.jsonl", [])
    with pytest.raises(ArtifactError, match="no records of a policy"):
        run(params_named("empty"))
    shutil.rmtree(paths.SELECTION / "policy")
    with pytest.raises(ArtifactError, match="artifacts/selection/policy"):
        run(params_named("empty"))
    assert version_at("empty", "candidate") is None


def test_a_champion_that_chooses_among_responses_is_measured_as_it_answers(workspace: Path, models: Path) -> None:
    params = params_named("chooser")
    put_candidate(models, 4, gold=0.75)
    run(params)
    champion = version_at("chooser", "champion")
    assert champion is not None
    candidate = read_records(paths.EVALUATION / "records.jsonl")["candidate"]
    prompts = [Prompt(row.prompt_id, row.prompt, kind="known") for row in candidate]
    samples = params.measurement.test_samples_per_prompt
    records = measure_policy(models / "policy_4", params, prompts, samples, TEST_STREAM)
    assert measure_champion(champion, params, candidate, JUDGE) == prompt_means(records, "judge")
    plain = measure_policy(models / "policy_1", params, prompts, samples, TEST_STREAM)
    assert all(record.reward >= other.reward - 1e-5 for record, other in zip(records, plain, strict=True))
    assert [record.response for record in records] != [other.response for other in plain]


@pytest.mark.parametrize("number", [1, 4], ids=["policy", "best of 2"])
def test_the_champion_loads_and_answers_in_a_fresh_process_without_the_artifacts(
    workspace: Path, models: Path, shared_store: Path, number: int
) -> None:
    put_candidate(models, number, gold=0.75)
    run(params_named(f"served_{number}"))
    shutil.rmtree("artifacts")
    code = """
import sys, mlflow, pandas
model = mlflow.pyfunc.load_model(f"models:/served_{sys.argv[1]}@champion")
prompts = ["my printer does not start .", "my screen stays dark ."]
answers = model.predict(prompts)
assert isinstance(answers, list) and len(answers) == 2 and all(isinstance(a, str) for a in answers), answers
assert model.predict(prompts) == answers, "the default seed is fixed"
assert model.predict(pandas.DataFrame({"id": [1, 2], "prompt": prompts})) == answers
assert model.predict(prompts[0]) == answers[:1]
assert model.predict([]) == []
assert model.predict(prompts * 8, params={"seed": 7}) != answers * 8
assert model.predict(prompts, params={"max_response_tokens": 1}) != answers
for wrong in ([1, 2], pandas.DataFrame({"text": prompts})):
    try:
        model.predict(wrong)
    except Exception as fault:
        assert "the model cannot read these prompts" in str(fault), fault
    else:
        raise AssertionError(wrong)
"""
    # In the root of a repository MLflow finds mlflow.db without being told.
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(number)],
        cwd=shared_store,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("has_rubric", "allowed", "promoted"), [(False, False, False), (False, True, True), (True, False, True)]
)
def test_a_judge_that_loses_to_length_promotes_nothing_unless_it_may(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str], has_rubric: bool, allowed: bool, promoted: bool
) -> None:
    name = f"weak_{has_rubric}_{allowed}"
    params = params_named(name, allow_weak_judge=allowed)
    params = params if has_rubric else without_rubric(params)
    write_json(paths.JUDGE / "metrics.json", GOOD_SCORER | {"longer_wins_accuracy_heldout": 0.8})
    put_candidate(models, 1, gold=0.75, has_rubric=has_rubric)
    run(params)
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
        run(without_rubric(params_named("other_rubric")))


def test_a_weak_reward_model_is_warned_about(workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(paths.REWARD_MODEL / "metrics.json", GOOD_SCORER | {"accuracy_heldout": 0.4})
    put_candidate(models, 1, gold=0.75)
    run(params_named("weak_reward_model"))
    said = capsys.readouterr().out
    assert "warning: the reward model is right on 40.0% of 50" in said and "promoted: " in said
