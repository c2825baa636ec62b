"""The methods that learn from comparisons, and the one that learns nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, NotNegative, Positive, Section, contradiction


class ComparisonMethod(Section):
    """What the methods share that learn from the reward model's comparisons and sample nothing to train on."""

    # One cycle, one iteration; an iteration's comparisons go into optimiser steps of batch_size.
    iterations_per_cycle: Count
    comparisons_per_iteration: Count
    batch_size: Count
    microbatch_size: Count  # comparisons; each is two sequences
    progress_prompts: Count  # answered after every iteration, to see where the policy is
    # Optimiser.
    learning_rate: Positive
    learning_rate_warmup_iterations: Annotated[int, Field(ge=0)]
    weight_decay: NotNegative
    gradient_clip: Positive

    @model_validator(mode="after")
    def batches_fit(self) -> ComparisonMethod:
        if self.comparisons_per_iteration % self.batch_size:
            raise contradiction(
                "batch_size",
                f"a divisor of comparisons_per_iteration, {self.comparisons_per_iteration}",
                self.batch_size,
            )
        if self.microbatch_size > self.batch_size:
            raise contradiction("microbatch_size", f"at most batch_size, {self.batch_size}", self.microbatch_size)
        return self


class PreferenceLoss(Section):
    """The loss of DPO, of a pair of responses against a reference policy."""

    loss: Literal["sigmoid", "ipo"]
    beta: Positive
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)]  # the share of labels assumed flipped

    @model_validator(mode="after")
    def ipo_has_no_label_smoothing(self) -> PreferenceLoss:
        if self.loss == "ipo" and self.label_smoothing > 0:
            raise contradiction(
                "label_smoothing",
                "0 with loss ipo: label_smoothing belongs to loss sigmoid",
                self.label_smoothing,
            )
        return self


class Dpo(ComparisonMethod, PreferenceLoss):
    """Direct preference optimisation; the reference is the SFT policy."""


class QLearning(ComparisonMethod):
    """Q-learning for language (ILQL); see components.alignment.q_learning. Its learning_rate is the policy's."""

    head_learning_rate: Positive  # of the value head and the Q heads, which start from nothing
    # Losses.
    gamma: Fraction
    tau: Annotated[float, Field(gt=0.0, lt=1.0)]  # the expectile of Q that V learns; 0.5 is the mean
    cql_coef: NotNegative
    awac_coef: NotNegative
    awac_beta: NotNegative  # how much more a good token weighs in the policy's loss; 0: all alike
    polyak_alpha: Annotated[float, Field(gt=0.0, le=1.0)]  # share of the Q heads in the next target heads, each step
    # Decoding.
    decode_beta: NotNegative  # by pi * exp(decode_beta * (Q - V))


class BestOfN(Section):
    """The best of n responses of the SFT policy by the reward model; cycle k has n = first_n * growth^(k - 1)."""

    first_n: Count
    growth: Annotated[int, Field(ge=2)]
    progress_prompts: Count  # sampled for the curve only
