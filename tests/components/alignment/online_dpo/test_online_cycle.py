"""Cycles of online DPO: what is stored of them, interrupted and resumed, in parts, and with faults planted."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.alignment.online_dpo.learner import OnlineDpoLearner
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, Rollouts
from components.alignment.preferences.update import Updater
from components.artifacts import read_json, read_jsonl
from components.config import Params
from components.data.formats.detect import format_of
from components.data.rows import Comparison, read_rows
from components.digests import digest
from components.errors import DataError, TrainingError
from components.models.loading import load_codec, load_policy
from components.place import Place
from components.stages import perform

ChangeParams = Callable[..., Params]
TINY = {"missing_eos": "none"}  # few of its responses end


@pytest.fixture
def params(world: Path, change_params: ChangeParams) -> Params:
    return change_params(method="online_dpo", online_dpo=TINY)


def rows_of_pairs(cycle: int) -> list[dict[str, Any]]:
    return list(read_jsonl(Place().alignment / str(cycle) / "state" / "pairs.jsonl"))


@pytest.fixture
def rolled_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[EncodedPrompt], Rollouts]]:
    """What the collector was asked and gave, iteration by iteration."""
    kept: list[tuple[list[EncodedPrompt], Rollouts]] = []
    real = Collector.roll_out

    def keeps(collector: Any, prompts: list[EncodedPrompt], iteration: int) -> Rollouts:
        kept.append((prompts, real(collector, prompts, iteration)))
        return kept[-1][1]

    monkeypatch.setattr(Collector, "roll_out", keeps)
    return kept


def test_a_cycle_leaves_its_pairs_with_their_provenance(
    world: Path, change_params: ChangeParams, rolled_out: list[tuple[list[EncodedPrompt], Rollouts]]
) -> None:
    """Each prompt's best and worst response, sorted by Python; policies and reward model by their folders' digests."""
    params = change_params(method="online_dpo", online_dpo=TINY | {"responses_per_prompt": 3})
    for cycle in (1, 2):
        perform("alignment", params, Place(), cycle)
    decode, found = load_codec(Place().sft / "policy").decode, [*rows_of_pairs(1), *rows_of_pairs(2)]
    curve = [row for cycle in (1, 2) for row in read_json(Place().alignment / str(cycle) / "curve.json")]
    expected = []
    for iteration, (prompts, rollouts) in enumerate(rolled_out, start=1):
        answers = list(zip(rollouts.scores.tolist(), decode(rollouts.sequences.responses()), strict=True))
        made = []
        for first in range(0, 12, 3):
            assert len({prompt.row.id for prompt in prompts[first : first + 3]}) == 1
            (low, worst), _, (high, best) = sorted(answers[first : first + 3], key=lambda answer: answer[0])
            if best != worst:
                row = prompts[first].row
                made.append({"prompt_id": row.id, "prompt": row.prompt, "iteration": iteration, "chosen": best,
                             "rejected": worst, "chosen_score": high, "rejected_score": low})  # fmt: skip
        assert curve[iteration - 1]["pairs"] == len(made) and curve[iteration - 1]["ties"] == 4 - len(made)
        assert curve[iteration - 1]["score_gap"] == pytest.approx(
            sum(row["chosen_score"] - row["rejected_score"] for row in made) / len(made), abs=1e-5
        )
        expected += made
    assert len(rolled_out) == 6 and len(expected) > 12
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    assert len({row["id"] for row in found}) == len(found)
    assert {row["reward_model"] for row in found} == {digest(Place().reward_model / "model")}
    policies = {row["iteration"]: row["policy"] for row in found}
    assert len(set(policies.values())) == 6  # a step has moved each
    assert policies[1] == digest(Place().sft / "policy") and policies[4] == digest(Place().alignment / "1" / "policy")
    assert [row["cycle"] for row in found] == [1 if row["iteration"] < 4 else 2 for row in found]
    metrics = read_json(Place().alignment / "2" / "metrics.json")
    assert abs(metrics["validation"]["kl"]) > 1e-4
    assert metrics["cost"]["sampled_tokens"] == sum(row["sampled_tokens"] for row in curve[3:]) > 0


def test_the_pairs_can_be_brought_as_data(params: Params, tmp_path: Path) -> None:
    perform("alignment", params, Place(), 1)
    pairs = Place().alignment / "1" / "state" / "pairs.jsonl"
    rows = read_rows(pairs, Comparison)
    given = list(read_jsonl(pairs))
    assert format_of(given, list(range(len(given))), "pairs.jsonl", "pairs").name == "prompt, chosen, rejected"
    assert rows and {row.source for row in rows} == {"online/reward_model"}
    assert all(row.extra["policy"] and row.extra["iteration"] for row in rows)


def test_the_first_step_starts_at_the_reference(params: Params, change_params: ChangeParams) -> None:
    shape = {"iterations_per_cycle": 1, "batch_size": 8, "prompts_per_iteration": 8, "responses_per_prompt": 3}
    perform("alignment", change_params(method="online_dpo", online_dpo=TINY | shape), Place(), 1)
    (row,) = read_json(Place().alignment / "1" / "curve.json")
    assert row["kl"] == 0.0 and row["approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert row["loss"] == pytest.approx(0.6931472, abs=1e-5) and row["steps"] == 1
    assert row["margin"] == pytest.approx(0.0, abs=1e-5)
    assert row["score_gap"] > 0 and row["sampled_tokens"] >= 24


def test_an_interrupted_cycle_resumes_to_the_same_bytes(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second cycle, by a reference that has moved: the pairs before the interruption are kept."""
    settings = params.online_dpo.model_copy(update={"reference": "averaged", "reference_average_weight": 0.5})
    params = params.model_copy(update={"online_dpo": settings})
    for cycle in (1, 2):
        perform("alignment", params, Place(), cycle)
    expected = digest(Place().alignment)
    assert {path.name for path in (Place().alignment / "2" / "state").iterdir()} == {
        "pairs.jsonl", "progress.json", "reference",
    }  # fmt: skip
    shutil.rmtree(Place().alignment)
    real = OnlineDpoLearner._update
    for cycle, stops_in in ((1, 1), (2, 5)):
        with monkeypatch.context() as patch:

            def stops(learner: Any, *arguments: Any, stops_in: int = stops_in) -> Any:
                if arguments[-1] == stops_in:
                    raise KeyboardInterrupt
                return real(learner, *arguments)

            patch.setattr(OnlineDpoLearner, "_update", stops)
            with pytest.raises(KeyboardInterrupt):
                perform("alignment", params, Place(), cycle)
        perform("alignment", params, Place(), cycle)
    assert digest(Place().alignment) == expected


def test_an_interrupted_cycle_without_its_pairs_is_refused(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def stops(learner: Any, *arguments: Any) -> Any:
            if arguments[-1] == 1:
                raise KeyboardInterrupt
            return {"steps": 0, "trained_tokens": 0}

        patch.setattr(OnlineDpoLearner, "_update", stops)
        with pytest.raises(KeyboardInterrupt):
            perform("alignment", params, Place(), 1)
    (pairs,) = Place().work.glob("alignment-1-*/state/pairs.jsonl")
    pairs.unlink()
    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        perform("alignment", params, Place(), 1)


def test_an_iteration_of_ties_teaches_nothing_and_says_so(
    params: Params, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    """No response ends within one token of a learned end: all are replaced by one score."""
    ties = {"missing_eos": "replace", "iterations_per_cycle": 2}
    changed = change_params(method="online_dpo", online_dpo=ties, language_model={"max_response_tokens": 1})
    with caplog.at_level(logging.WARNING, logger="proximal"):
        perform("alignment", changed, Place(), 1)
    curve = read_json(Place().alignment / "1" / "curve.json")
    still = [row for row in curve if row["pairs"] == 0]
    assert still and all(row["steps"] == 0 and row["ties"] == 4 and "loss" not in row for row in still)
    assert "no prompt has two responses of different scores" in caplog.text
    if len(still) == len(curve):
        weights = (load_policy(folder / "policy").state_dict() for folder in (Place().sft, Place().alignment / "1"))
        first, second = weights
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_policy_that_trains_on_what_another_gave_stops_the_run(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Collector.roll_out

    def by_another(collector: Any, *arguments: Any) -> Any:
        rollouts = real(collector, *arguments)
        names = ("old_logprobs", "ref_logprobs", "sampled_logprobs")
        return rollouts._replace(**{name: 2.0 * getattr(rollouts, name) for name in names})

    monkeypatch.setattr(Collector, "roll_out", by_another)
    with pytest.raises(TrainingError, match="not the one that was sampled from") as caught:
        perform("alignment", params, Place(), 1)
    assert caught.value.where == "online_dpo, iteration 1, step 1"


def test_a_fault_names_the_prompts(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Updater.update

    def broken(updater: Any, *arguments: Any) -> Any:
        with torch.no_grad():
            updater._ref_logprobs[:] = torch.nan
        return real(updater, *arguments)

    monkeypatch.setattr(Updater, "update", broken)
    with pytest.raises(TrainingError) as caught:
        perform("alignment", params, Place(), 1)
    place, named = caught.value.where.split(", comparisons ")
    prompts = {json.loads(line)["id"] for line in (Place().clean / "prompts_train.jsonl").read_text().splitlines()}
    assert place == "online_dpo, iteration 1" and named in prompts
    assert "online_dpo.learning_rate" in str(caught.value.do)
