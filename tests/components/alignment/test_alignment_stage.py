"""The stage as DVC runs it: what it writes, twice the same, by every method; with inputs that are not there."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.artifacts import read_jsonl
from components.config import Params, load_params
from components.digests import digest
from components.errors import ArtifactError, ConfigError
from components.models.best_of_n import BestOfNPolicy
from components.models.ensemble import Ensemble
from components.models.loading import load_codec, load_policy, load_scalar_model
from components.place import Place
from components.stages import perform

ChangeParams = Callable[..., Params]
FILES = ("checks.json", "curve.json", "metrics.json", "validation.jsonl")


def test_two_runs_write_the_same_bytes_and_the_second_cycle_goes_on(world: Path) -> None:
    params = load_params(Place().params)
    digests = []
    for _ in range(2):
        shutil.rmtree(Place().alignment, ignore_errors=True)
        perform("alignment", params, Place(), 1)
        perform("alignment", params, Place(), 2)
        digests.append(digest(Place().alignment))
    assert digests[0] == digests[1]
    for cycle in ("1", "2"):
        folder = Place().alignment / cycle
        assert {path.name for path in folder.iterdir()} == {"policy", "state", *FILES}
        load_policy(folder / "policy")
        load_scalar_model(folder / "state" / "value_model")
    curves = [json.loads((Place().alignment / cycle / "curve.json").read_text()) for cycle in ("1", "2")]
    assert [row["iteration"] for rows in curves for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["cycle"] for rows in curves for row in rows] == [1, 1, 1, 2, 2, 2]
    first, second = (json.loads((Place().alignment / cycle / "metrics.json").read_text()) for cycle in ("1", "2"))
    assert first.keys() - second.keys() == {"validation_start"} and second.keys() == {"validation", "cost", "cut"}
    checks = [json.loads((Place().alignment / cycle / "checks.json").read_text()) for cycle in ("1", "2")]
    every = {"sampler": 3, "sampler_largest": 3, "ratio": 3}  # iterations
    assert [{row["name"]: row["times"] for row in rows} for rows in checks] == [{**every, "reference": 1}, every]
    assert all(0 <= row["largest"] <= row["bound"] for rows in checks for row in rows)
    codec = load_codec(Place().sft / "policy")
    cut = codec.are_too_long([row["prompt"] for row in read_jsonl(Place().clean / "prompts_train.jsonl")])
    assert first["cut"] == second["cut"] == {"truncated_prompts_fraction": sum(cut) / len(cut)} and sum(cut) > 0
    for rows, metrics in zip(curves, (first, second), strict=True):
        for name in ("sampled_tokens", "trained_tokens"):
            assert metrics["cost"][name] == sum(row[name] for row in rows) > 0
    assert first["validation_start"]["kl"] == pytest.approx(0.0, abs=1e-5)
    for cycle, policies in (("1", {"start": first["validation_start"], "cycle": first["validation"]}),
                            ("2", {"cycle": second["validation"]})):  # fmt: skip
        rows = read_jsonl(Place().alignment / cycle / "validation.jsonl")
        assert {row["policy"] for row in rows} == policies.keys()
        for policy, means in policies.items():
            values = [row["gold"] for row in rows if row["policy"] == policy]
            assert sum(values) / len(values) == pytest.approx(means["gold"], abs=1e-12)
    assert abs(first["validation"]["kl"]) > 1e-4
    assert not list(Place().work.iterdir())  # nothing is left of the iterations' checkpoints


def test_a_later_round_begins_with_the_policy_of_the_one_before(world: Path, change_params: ChangeParams) -> None:
    perform("alignment", load_params(Place().params), Place(), 1)
    before = json.loads((Place().alignment / "1" / "metrics.json").read_text())
    [at_sft, *_] = json.loads((Place().alignment / "1" / "curve.json").read_text())
    shutil.copytree(Place().alignment / "1" / "policy", Place().present_policy / "policy")
    perform("alignment", change_params(cycles={"1": {"start": "present_policy"}}), Place(), 1)
    told = {name: json.loads((Place().alignment / "1" / f"{name}.json").read_text()) for name in ("metrics", "checks")}
    assert told["metrics"]["validation_start"] == before["validation_start"]  # the curves begin with the SFT policy
    assert "reference" not in {row["name"] for row in told["checks"]}  # from which this policy has gone away
    [first, *_] = json.loads((Place().alignment / "1" / "curve.json").read_text())
    assert at_sft["kl"] == 0.0 and abs(first["kl"]) > 1e-4
    assert digest(Place().alignment / "1" / "policy") != digest(Place().present_policy / "policy")


def test_no_file_tells_where_or_when_it_was_made(world: Path) -> None:
    perform("alignment", load_params(Place().params), Place(), 1)
    for file in Place().alignment.rglob("*.json"):
        content = file.read_text()
        assert str(world) not in content and "/tmp" not in content and "20" + time.strftime("%y-") not in content


def test_work_and_results_may_lie_on_different_file_systems(world: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == Path().stat().st_dev:
        pytest.skip("there is no second file system")
    params = load_params(Place().params)
    perform("alignment", params, Place(), 1)
    expected = digest(Place().alignment / "1")
    shutil.rmtree(Place().alignment / "1")
    shutil.rmtree(Place().work)
    with tempfile.TemporaryDirectory(dir=other) as elsewhere:
        Place().work.symlink_to(elsewhere)
        perform("alignment", params, Place(), 1)
    assert digest(Place().alignment / "1") == expected


def test_a_cycle_that_is_not_in_the_params_is_refused(world: Path) -> None:
    with pytest.raises(ConfigError, match="--cycle") as caught:
        perform("alignment", load_params(Place().params), Place(), 3)
    assert caught.value.found == "3" and "1, 2" in caught.value.expected


@pytest.mark.parametrize(
    "missing",
    [
        Place().sft / "policy",
        Place().reward_model / "model",
        Place().judge / "model" / "model.safetensors",
        Place().clean / "prompts_train.jsonl",
    ],
)
def test_an_absent_input_is_named_and_nothing_is_left(world: Path, missing: Path) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    before = sorted(world.rglob("*"))
    with pytest.raises(ArtifactError, match=str(missing.parent)):
        perform("alignment", load_params(Place().params), Place(), 1)
    assert sorted(world.rglob("*")) == before


def test_a_cycle_without_its_start_is_refused(world: Path) -> None:
    with pytest.raises(ArtifactError, match="artifacts/alignment/1"):
        perform("alignment", load_params(Place().params), Place(), 2)
    assert not Place().alignment.exists()


def test_dpo_runs_as_a_stage(world: Path, change_params: ChangeParams) -> None:
    params = change_params(method="dpo")
    perform("alignment", params, Place(), 1)
    perform("alignment", params, Place(), 2)
    for cycle in ("1", "2"):
        folder = Place().alignment / cycle
        assert {path.name for path in folder.iterdir()} == {"policy", "state", *FILES}
    curve = json.loads((Place().alignment / "2" / "curve.json").read_text())
    assert [(row["cycle"], row["iteration"]) for row in curve] == [(2, 4), (2, 5), (2, 6)]
    metrics = json.loads((Place().alignment / "2" / "metrics.json").read_text())
    assert metrics["cost"] == {"sampled_tokens": 0, "trained_tokens": sum(row["trained_tokens"] for row in curve)}
    assert abs(metrics["validation"]["kl"]) > 1e-4


def test_an_ensemble_scores_wherever_a_reward_model_does(world: Path, change_params: ChangeParams) -> None:
    """In rollouts, in measurements, and as what the best of n is chosen by; values start from its first member."""
    ensemble = {"reward_model": {"members": 2, "ensemble": "min"}}
    rates = {"iterations_per_cycle": 1, "learning_rate": 1e-12, "value_learning_rate": 1e-12}
    params = change_params(**ensemble, ppo=rates)
    perform("reward_model", params, Place())
    perform("alignment", params, Place(), 1)
    value_model = load_scalar_model(Place().alignment / "1" / "state" / "value_model").state_dict()
    first, second = (load_scalar_model(Place().reward_model / "model" / member).state_dict() for member in "12")
    for name, weight in value_model.items():
        torch.testing.assert_close(weight, first[name], rtol=0, atol=1e-9)
    assert any(not torch.equal(first[name], second[name]) for name in first)

    metrics = {}
    for mode in ("min", "mean"):
        params = change_params(method="best_of_n", reward_model=ensemble["reward_model"] | {"ensemble": mode})
        perform("reward_model", params, Place())
        perform("alignment", params, Place(), 1)
        policy = load_policy(Place().alignment / "1" / "policy")
        assert isinstance(policy, BestOfNPolicy) and isinstance(policy.scorer, Ensemble) and policy.scorer.mode == mode
        metrics[mode] = json.loads((Place().alignment / "1" / "metrics.json").read_text())
    # The SFT policy's samples are the same in both, and the minimum is never above the mean.
    assert metrics["min"]["validation_start"]["reward"] < metrics["mean"]["validation_start"]["reward"]


def test_rlhf_without_a_critic_runs_as_a_stage(world: Path, change_params: ChangeParams) -> None:
    params = change_params(method="grpo", grpo={"iterations_per_cycle": 1})
    perform("alignment", params, Place(), 1)
    perform("alignment", params, Place(), 2)
    state = {path.name for path in (Place().alignment / "2" / "state").iterdir()}
    assert state == {"progress.json"}
    weights = [load_policy(Place().alignment / cycle / "policy").state_dict() for cycle in ("1", "2")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
