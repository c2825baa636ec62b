"""Ensembles of reward models and judges as DVC runs them: their members, and their combined score."""

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

from components.artifacts import read_jsonl
from components.config import Params
from components.digests import digest
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.models.loading import load_codec, load_policy
from components.place import Place
from components.seeding import generator
from components.stages import perform

ChangeParams = Callable[..., Params]
STAGES = ("reward_model", "judge")


@pytest.mark.parametrize("stage", STAGES)
def test_the_members_of_an_ensemble_differ_and_are_normalised_on_the_same_samples(
    world: Path, change_params: ChangeParams, tmp_path: Path, stage: str
) -> None:
    alone = shutil.copytree(Path("artifacts") / stage, tmp_path / "alone")
    params = change_params(**{stage: {"members": 3, "ensemble": "min"}})
    perform(stage, params, Place())
    model = Path("artifacts") / stage / "model"
    assert digest(model / "1") == digest(alone / "model")  # the first member is what a single one is
    assert len({digest(model / member) for member in "123"}) == 3
    codec = load_codec(Place().sft / "policy")
    rows = read_jsonl(Place().clean / "prompts_train.jsonl")[:8]
    samples = generate(
        load_policy(Place().sft / "policy"),
        codec,
        codec.encode_prompts([row["prompt"] for row in rows]),
        draw_uniforms(len(rows), 6, generator(params.seed, stage, "normalisation")),
        temperature=params.measurement.temperature,
        batch_size=3,
    )
    for member in "123":
        scorer = PlainScorer(stage, member)
        scores = [
            scorer.of_tokens(torch.cat([prompt[prompt_mask], response[mask]]).tolist())
            for prompt, prompt_mask, response, mask in zip(*samples, strict=True)
        ]
        assert (statistics.mean(scores), statistics.stdev(scores)) == pytest.approx((0.0, 1.0), abs=1e-4)


@pytest.mark.parametrize("mode", ["mean", "min", "mean_minus_std"])
def test_the_quality_of_an_ensemble_is_that_of_its_combined_score(
    world: Path, change_params: ChangeParams, mode: str
) -> None:
    perform("judge", change_params(judge={"members": 2, "ensemble": mode, "ensemble_std_coef": 0.5}), Place())
    scorers = [PlainScorer("judge", member) for member in "12"]
    scale = statistics.mean(scorer.model.config.score_std for scorer in scorers)

    def combined(prompt: str, response: str) -> float:
        scores = [scorer(prompt, response) for scorer in scorers]
        spread = 0.5 * statistics.stdev(scores) if mode == "mean_minus_std" else 0.0
        return min(scores) if mode == "min" else statistics.mean(scores) - spread

    rows = read_jsonl(Place().clean / "comparisons_judge_heldout.jsonl")
    margins = [
        scale * (combined(row["prompt"], row["chosen"]) - combined(row["prompt"], row["rejected"])) for row in rows
    ]
    metrics = json.loads((Place().judge / "metrics.json").read_text())
    assert metrics["accuracy_heldout"] == pytest.approx(sum(margin > 0 for margin in margins) / len(rows))
    losses = [math.log(1 + math.exp(-margin)) for margin in margins]
    assert metrics["loss_heldout"] == pytest.approx(statistics.mean(losses), abs=1e-5)
    table = json.loads((Place().judge / "calibration.json").read_text())
    assert sum(row["size"] for row in table) == len(rows)
