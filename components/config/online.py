"""The method that makes its comparisons itself: online DPO."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, NotNegative, Positive, contradiction
from components.config.comparisons import PreferenceLoss
from components.config.policy_gradient import LengthPenalty


class OnlineDpo(PreferenceLoss):
    """DPO on the policy's own responses, which the reward model tells apart."""

    # One cycle, one iteration; of each prompt's responses the best and the worst are a pair, unless they tie.
    iterations_per_cycle: Count
    prompts_per_iteration: Count
    responses_per_prompt: Annotated[int, Field(ge=2)]
    batch_size: Count  # pairs of an optimiser step
    microbatch_size: Count  # pairs; each is two sequences
    temperature: Positive
    # Optimiser.
    learning_rate: Positive
    learning_rate_warmup_iterations: Annotated[int, Field(ge=0)]
    weight_decay: NotNegative
    gradient_clip: Positive
    # What responses are told apart by: the reward model's score, with these.
    missing_eos: Literal["none", "replace", "subtract"]
    missing_eos_value: float
    length_penalty: LengthPenalty | None
    # The policy that the loss, and KL, are measured from.
    reference: Literal["fixed", "refreshed", "averaged"]
    reference_average_weight: Fraction  # of the policy, at the start of each cycle, when averaged

    @model_validator(mode="after")
    def batches_fit(self) -> OnlineDpo:
        if self.batch_size > self.prompts_per_iteration:
            raise contradiction(
                "batch_size",
                f"at most prompts_per_iteration, {self.prompts_per_iteration}: a prompt gives one pair",
                self.batch_size,
            )
        if self.microbatch_size > self.batch_size:
            raise contradiction("microbatch_size", f"at most batch_size, {self.batch_size}", self.microbatch_size)
        return self
