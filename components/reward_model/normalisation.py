"""Scores in standard deviations: each member's are shifted and scaled on samples of the SFT policy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.config import RewardModel, Shared
from components.data.rows import Prompt
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import TrainingError
from components.models.loading import load_policy
from components.models.scalar_model import ScalarModel
from components.models.text import Codec
from components.passes.sequences import Sequences
from components.reward_model.quality import scores_of
from components.seeding import generator


class Samples(NamedTuple):
    """Prompts, and the SFT policy's responses to them."""

    rows: list[Prompt]
    sequences: Sequences


def sft_samples(
    policy_folder: Path,
    prompts: list[Prompt],
    codec: Codec,
    settings: RewardModel,
    shared: Shared,
    label: str,
    device: torch.device,
) -> Samples:
    """The prompts that scores are normalised on, with a response of the SFT policy's to each."""
    policy = load_policy(policy_folder, shared.language_model).to(device)
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
    return Samples(chosen, samples)


def normalise_members(members: list[ScalarModel], samples: Samples | None, shared: Shared, label: str) -> None:
    """Shift and scale each member's scores to mean 0 and standard deviation 1 on samples of the SFT policy."""
    for member in members:
        assert samples is not None
        scores = scores_of(member, samples.sequences, shared.measurement.batch_size)
        member.classifier.config.score_mean, member.classifier.config.score_std = moments(scores, label)


def moments(scores: Tensor, label: str) -> tuple[float, float]:
    """Mean and standard deviation of scores of the SFT policy's responses. Shapes: scores (B,).

    Raises:
        TrainingError: they are not finite, or all alike.
    """
    mean, std = float(scores.mean()), float(scores.std()) if len(scores) > 1 else 0.0
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise TrainingError(
            "the scores cannot be normalised",
            where=f"{label}, scores of the SFT policy's responses to {len(scores)} prompts",
            expected="finite scores that differ",
            found=f"mean {mean}, standard deviation {std}",
            do=f"raise {label}.normalisation_prompts or the number of prompts, or lower {label}.learning_rate",
        )
    return mean, std
