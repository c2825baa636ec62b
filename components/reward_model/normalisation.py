"""Scores in standard deviations: each member's are shifted and scaled on samples of the SFT policy."""

from __future__ import annotations

import math
from pathlib import Path

from components.config import RewardModel, Shared
from components.data.rows import Prompt
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import TrainingError
from components.models.loading import ScalarModel, load_policy
from components.models.text import Codec
from components.reward_model.quality import scores_of
from components.seeding import generator


def normalise_members(
    members: list[ScalarModel],
    policy_folder: Path,
    prompts: list[Prompt],
    codec: Codec,
    settings: RewardModel,
    shared: Shared,
    label: str,
) -> None:
    """Shift and scale each member's scores to mean 0 and standard deviation 1 on the same samples of the SFT policy."""
    policy = load_policy(policy_folder, shared.language_model).to(next(members[0].parameters()).device)
    chosen = prompts[: settings.normalisation_prompts]
    uniforms = draw_uniforms(
        len(chosen), shared.language_model.max_response_tokens, generator(shared.seed, label, "normalisation")
    )
    samples = generate(
        policy,
        codec,
        codec.encode_prompts([row.asked for row in chosen]),
        uniforms,
        temperature=shared.measurement.temperature,
        batch_size=shared.measurement.batch_size,
    )
    for member in members:
        scores = scores_of(member, samples, shared.measurement.batch_size)
        mean, std = float(scores.mean()), float(scores.std()) if len(chosen) > 1 else 0.0
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise TrainingError(
                "the scores cannot be normalised",
                where=f"{label}, scores of the SFT policy's responses to {len(chosen)} prompts",
                expected="finite scores that differ",
                found=f"mean {mean}, standard deviation {std}",
                do=f"raise {label}.normalisation_prompts or the number of prompts, or lower {label}.learning_rate",
            )
        member.classifier.config.score_mean, member.classifier.config.score_std = mean, std
