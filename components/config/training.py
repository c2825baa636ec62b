"""What learns from a fixed data set: SFT, the reward model and the judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, NotNegative, Positive, Section, contradiction
from components.config.scoring import Scoring


class Optimisation(Section):
    """AdamW with linear warm-up and decay to zero."""

    learning_rate: Positive
    weight_decay: NotNegative
    gradient_clip: Positive
    warmup_fraction: Fraction
    epochs: Count
    batch_size: Count
    microbatch_size: Count

    @model_validator(mode="after")
    def microbatches_fill_the_batch(self) -> Optimisation:
        if self.microbatch_size > self.batch_size:
            raise contradiction("microbatch_size", f"at most batch_size, {self.batch_size}", self.microbatch_size)
        return self


class Sft(Optimisation):
    """Supervised fine-tuning on demonstrations; the loss counts response tokens only."""

    epochs: Annotated[int, Field(ge=0)]  # 0: the checkpoint is the reference as it is


class RewardModel(Optimisation, Scoring):
    """A Bradley-Terry reward model (the judge has the same fields and other rows)."""

    seed_offset: Annotated[int, Field(ge=0)]
    members: Count  # models that differ in their seed; several are an ensemble
    ensemble: Literal["mean", "min", "mean_minus_std"]  # how their scores become one
    ensemble_std_coef: NotNegative  # k of mean - k * std
    normalisation_prompts: Annotated[int, Field(ge=2)]
    calibration_bins: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def a_spread_takes_two_members(self) -> RewardModel:
        if self.ensemble == "mean_minus_std" and self.members < 2:
            raise contradiction("members", "at least 2 for ensemble mean_minus_std", self.members)
        return self
