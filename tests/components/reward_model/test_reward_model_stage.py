"""Reward model and judge as DVC runs them: loss, quality and normalisation against plain Hugging Face forwards."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_scorer import PlainScorer

from components.artifacts import read_jsonl, write_jsonl
from components.config import Params, load_params
from components.digests import digest
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import ArtifactError, ProximalError
from components.models.loading import load_policy
from components.place import Place
from components.seeding import generator
from components.stages import perform

ChangeParams = Callable[..., Params]
STAGES = ("reward_model", "judge")


@pytest.mark.parametrize("stage", STAGES)
def test_held_out_quality_is_as_counted_by_hand(world: Path, stage: str) -> None:
    scorer = PlainScorer(stage)
    std = scorer.model.config.score_std
    rows = read_jsonl(Place().clean / f"comparisons_{stage}_heldout.jsonl")
    # The quality is that of the raw scores: normalising comes after it, and would change every probability.
    margins = [std * (scorer(row["prompt"], row["chosen"]) - scorer(row["prompt"], row["rejected"])) for row in rows]
    metrics = json.loads((Path("artifacts") / stage / "metrics.json").read_text())
    assert metrics["comparisons_heldout"] == len(rows)
    assert metrics["accuracy_heldout"] == pytest.approx(sum(margin > 0 for margin in margins) / len(rows))
    losses = [math.log(1 + math.exp(-margin)) for margin in margins]
    assert metrics["loss_heldout"] == pytest.approx(statistics.mean(losses), abs=1e-5)
    wins = {True: 1.0, False: 0.0}
    longer = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    expected = statistics.mean(wins[gap > 0] if gap else 0.5 for gap in longer)
    assert metrics["longer_wins_accuracy_heldout"] == pytest.approx(expected)
    margin = metrics["accuracy_heldout"] - max(expected, 0.5)
    assert metrics["margin_over_baseline_heldout"] == pytest.approx(margin)
    pairs = read_jsonl(Place().clean / f"comparisons_{stage}_heldout_pairs.jsonl")
    right = [scorer(row["prompt"], row["chosen"]) > scorer(row["prompt"], row["rejected"]) for row in pairs]
    assert metrics["comparisons_heldout_pairs"] == len(pairs) > 0
    assert metrics["accuracy_heldout_pairs"] == pytest.approx(statistics.mean(right))

    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, margin in zip(rows, margins, strict=True):  # shown in alphabetical order
        first_won = row["chosen"] < row["rejected"]
        probability = 1 / (1 + math.exp(-margin if first_won else margin))
        bins.setdefault(int(probability * 10), []).append((probability, first_won))
    error = sum(abs(sum(p for p, _ in part) - sum(won for _, won in part)) for part in bins.values()) / len(rows)
    assert metrics["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    table = json.loads((Path("artifacts") / stage / "calibration.json").read_text())
    assert [row["size"] for row in table] == [len(bins[number]) for number in sorted(bins)]


@pytest.mark.parametrize("stage", STAGES)
def test_scores_of_sft_samples_have_mean_zero_and_standard_deviation_one(world: Path, stage: str) -> None:
    params = load_params(Place().params)
    settings = getattr(params, stage)
    scorer = PlainScorer(stage)
    rows = read_jsonl(Place().clean / "prompts_train.jsonl")[: settings.normalisation_prompts]
    samples = generate(
        load_policy(Place().sft / "policy"),
        scorer.codec,
        scorer.codec.encode_prompts([row["prompt"] for row in rows]),
        draw_uniforms(len(rows), 6, generator(params.seed, stage, "normalisation")),
        temperature=params.measurement.temperature,
        batch_size=3,
    )
    scores = [
        scorer.of_tokens(torch.cat([prompt[prompt_mask], response[mask]]).tolist())
        for prompt, prompt_mask, response, mask in zip(*samples, strict=True)
    ]
    assert len(scores) == 8
    assert (statistics.mean(scores), statistics.stdev(scores)) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_the_loss_is_bradley_terrys_of_all_comparisons(world: Path, change_params: ChangeParams) -> None:
    """A step so small that the weights stay: the loss reported is that of the stored model's raw scores."""
    rows = read_jsonl(Place().clean / "comparisons_judge.jsonl")
    changes = {"learning_rate": 1e-12, "epochs": 1, "batch_size": len(rows), "microbatch_size": 3}
    perform("judge", change_params(judge=changes), Place())
    scorer = PlainScorer("judge")
    std = scorer.model.config.score_std
    losses = []
    for row in rows:
        margin = std * (scorer(row["prompt"], row["chosen"]) - scorer(row["prompt"], row["rejected"]))
        losses.append(math.log(1 + math.exp(-margin)))
    metrics = json.loads((Place().judge / "metrics.json").read_text())
    assert metrics["loss"] == pytest.approx(statistics.mean(losses), abs=1e-5)
    assert metrics["comparisons"] == len(rows)


def test_it_learns_which_response_is_preferred(world: Path, change_params: ChangeParams) -> None:
    rows = [
        {"id": str(i), "prompt": row["prompt"], "chosen": "yes", "rejected": "no"}
        for i, row in enumerate(read_jsonl(Place().clean / "prompts_train.jsonl"))
    ]
    write_jsonl(Place().clean / "comparisons_reward_model.jsonl", rows)
    write_jsonl(Place().clean / "comparisons_reward_model_heldout.jsonl", rows[:5])
    perform("reward_model", change_params(reward_model={"learning_rate": 0.02, "epochs": 8}), Place())
    metrics = json.loads((Place().reward_model / "metrics.json").read_text())
    assert metrics["accuracy_heldout"] == 1.0 and metrics["loss_heldout"] < 0.3


def test_two_runs_write_the_same_bytes_and_the_judge_is_another_model(world: Path) -> None:
    before = {stage: digest(Path("artifacts") / stage) for stage in STAGES}
    assert before["reward_model"] != before["judge"]
    for stage in STAGES:
        shutil.rmtree(Path("artifacts") / stage)
        perform(stage, load_params(Place().params), Place())
        assert digest(Path("artifacts") / stage) == before[stage]
        names = {path.name for path in (Path("artifacts") / stage).iterdir()}
        assert names == {"model", "metrics.json", "calibration.json"}


def test_the_judge_differs_even_on_the_reward_models_rows(world: Path) -> None:
    """Its seed alone makes it independent."""
    for part in ("", "_heldout", "_heldout_pairs"):
        source = Place().clean / f"comparisons_reward_model{part}.jsonl"
        shutil.copy(source, Place().clean / f"comparisons_judge{part}.jsonl")
    perform("judge", load_params(Place().params), Place())
    assert digest(Place().judge / "model") != digest(Place().reward_model / "model")


@pytest.mark.parametrize(
    "missing",
    [
        Place().clean / "comparisons_judge.jsonl",
        Place().clean / "comparisons_judge_heldout.jsonl",
        Place().clean / "comparisons_judge_heldout_pairs.jsonl",
        Place().clean / "prompts_train.jsonl",
        Place().sft / "policy" / "model.safetensors",
        Place().sft / "policy" / "tokenizer.json",
    ],
)
def test_an_absent_input_is_named_and_the_old_result_stays(world: Path, missing: Path) -> None:
    missing.unlink()
    before = digest(Place().judge)
    with pytest.raises(ArtifactError, match=str(missing.parent)):
        perform("judge", load_params(Place().params), Place())
    assert digest(Place().judge) == before
    assert not [path for path in Path("artifacts").iterdir() if path.name.startswith(".")]


def test_scores_that_do_not_differ_cannot_be_normalised(world: Path) -> None:
    """A single prompt has no standard deviation; to divide by it would store a model that scores NaN."""
    source = Place().clean / "prompts_train.jsonl"
    write_jsonl(source, read_jsonl(source)[:1])
    before = digest(Place().judge)
    with pytest.raises(ProximalError, match="normalis"):
        perform("judge", load_params(Place().params), Place())
    assert digest(Place().judge) == before


def test_a_scorer_that_loses_to_the_longer_answer_is_warned_about(
    world: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    """It learns that the short answer wins, and is tested where the long one does, on prompts that have no pairs."""
    train = [
        {"id": str(i), "prompt": row["prompt"], "chosen": "yes", "rejected": "go on"}
        for i, row in enumerate(read_jsonl(Place().clean / "prompts_train.jsonl"))
    ]
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in train[:5]]
    write_jsonl(Place().clean / "comparisons_judge.jsonl", train)
    write_jsonl(Place().clean / "comparisons_judge_heldout_pairs.jsonl", [])
    for heldout, weak in ((turned, True), (train[:5], False)):
        caplog.clear()
        write_jsonl(Place().clean / "comparisons_judge_heldout.jsonl", heldout)
        perform("judge", change_params(judge={"learning_rate": 0.02, "epochs": 8}), Place())
        metrics = json.loads((Place().judge / "metrics.json").read_text())
        assert metrics["margin_over_baseline_heldout"] == (-1.0 if weak else 0.5)
        assert (metrics["comparisons_heldout_pairs"], metrics.get("accuracy_heldout_pairs")) == (0, None)
        warned = 'the judge is right on 0.0% of 5 comparisons of unseen prompts, less than "the longer answer wins"'
        assert (warned in caplog.text) is weak
