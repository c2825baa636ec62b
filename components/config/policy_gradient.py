"""The methods that learn from their own responses: PPO, GRPO and RLOO."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.config.base import Count, Fraction, NotNegative, Positive, Section, contradiction


class LengthPenalty(Section):
    """A soft limit: from limit_tokens - buffer_tokens on the score falls linearly, at limit_tokens by `factor`."""

    limit_tokens: Count
    buffer_tokens: Count
    factor: Positive

    @model_validator(mode="after")
    def buffer_lies_below_the_limit(self) -> LengthPenalty:
        if self.buffer_tokens > self.limit_tokens:
            raise contradiction("buffer_tokens", f"at most limit_tokens, {self.limit_tokens}", self.buffer_tokens)
        return self


# Measured with scores held at 0 and kl_coef 1, from a KL of 1.25 nats; k3 in the loss ends at 0.03.
_FORCELESS = {
    ("reward", "k2"): "near it k2 has next to no force in a reward; KL 1.25 became 1.5 in 30 iterations (0.05 with k1)",
    ("reward", "k3"): "in a reward k3 pushes away from it; KL 1.25 became 2.3 in 30 iterations (0.05 with k1)",
    ("loss", "k1"): "the expected gradient of k1 is 0; KL 1.25 became 5.6 in 30 iterations (0.04 with k2)",
}

# A single token's ratio is clipped at about 0.2; of a response of 10 tokens the mean moves about a third of that.
_LARGEST_GSPO_RANGE = 0.1


class PolicyGradient(Section):
    """What PPO, GRPO and RLOO share, each but for what it states itself; names as in the papers.

    There is no top-k, top-p or repetition penalty on purpose: responses are sampled from exactly the policy whose
    logprobs are stored, or the ratio and the KL would be those of another policy.
    """

    # One cycle, one iteration.
    iterations_per_cycle: Count
    rollouts_per_iteration: Annotated[int, Field(ge=2)]
    epochs: Count
    minibatches: Count
    microbatch_size: Count
    temperature: Positive
    # Optimiser.
    learning_rate: Positive
    learning_rate_warmup_iterations: Annotated[int, Field(ge=0)]
    learning_rate_decay_iterations: Count | None  # linearly to zero at this iteration; null: constant
    weight_decay: NotNegative
    gradient_clip: Positive
    # Reward of a response.
    missing_eos: Literal["none", "replace", "subtract"]
    missing_eos_value: float
    length_penalty: LengthPenalty | None
    score_scaling: Literal["none", "running_std", "running_mean_std"]
    score_clip: Positive | None
    # KL to the reference policy.
    kl_placement: Literal["reward", "loss"]
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_control: Literal["adaptive", "fixed"]
    kl_coef: NotNegative  # where the adaptive control starts
    target_kl_nats_per_sequence: Positive
    kl_horizon_rollouts: Positive
    reference: Literal["fixed", "refreshed", "averaged"]
    reference_average_weight: Fraction  # of the policy, at the start of each cycle, when averaged
    # Advantages.
    whiten_advantages: bool
    # Objective.
    policy_loss: Literal["ppo", "gspo", "cispo"]  # ppo clips a token's ratio, gspo a response's, cispo weights alone
    clip_range_low: Annotated[float, Field(gt=0.0, lt=1.0)] | None  # null: no bound below, with cispo
    clip_range_high: Positive  # both of the ratio that policy_loss takes
    dual_clip: Annotated[float, Field(gt=1.0)] | None  # of policy_loss ppo
    entropy_coef: NotNegative
    loss_aggregation: Literal[
        "token_mean", "sequence_mean", "sum_over_limit"
    ]  # sum_over_limit: by max_response_tokens, not by what was written
    mask_truncated: bool  # responses without an end token are left out of all losses; missing_eos is none
    max_update_kl_nats_per_token: Positive | None  # an update stops once it has moved the policy this far

    @model_validator(mode="after")
    def batches_fit(self) -> PolicyGradient:
        if self.rollouts_per_iteration % self.minibatches:
            rule = f"a divisor of rollouts_per_iteration, {self.rollouts_per_iteration}"
            raise contradiction("minibatches", rule, self.minibatches)
        minibatch = self.rollouts_per_iteration // self.minibatches
        if self.microbatch_size > minibatch:
            raise contradiction(
                "microbatch_size",
                f"at most a minibatch, {minibatch} ({self.rollouts_per_iteration} rollouts_per_iteration / "
                f"{self.minibatches} minibatches)",
                self.microbatch_size,
            )
        return self

    @model_validator(mode="after")
    def the_kl_term_holds_the_policy(self) -> PolicyGradient:
        reason = _FORCELESS.get((self.kl_placement, self.kl_estimator))
        if reason is not None:
            raise contradiction(
                "kl_estimator",
                f"k1 with kl_placement reward, k2 or k3 with loss: {self.kl_estimator} with {self.kl_placement} does "
                f"not hold the policy at the reference: {reason}",
                self.kl_estimator,
            )
        return self

    @model_validator(mode="after")
    def the_kl_coefficient_stays_above_zero(self) -> PolicyGradient:
        if self.kl_control == "adaptive" and self.kl_horizon_rollouts <= 0.2 * self.rollouts_per_iteration:
            raise contradiction(
                "kl_horizon_rollouts",
                f"more than 0.2 * rollouts_per_iteration ({0.2 * self.rollouts_per_iteration:g}), or one step could "
                "turn the KL coefficient negative",
                self.kl_horizon_rollouts,
            )
        return self

    @model_validator(mode="after")
    def the_learning_rate_rises_before_it_falls(self) -> PolicyGradient:
        decay = self.learning_rate_decay_iterations
        if decay is not None and decay <= self.learning_rate_warmup_iterations:
            raise contradiction(
                "learning_rate_decay_iterations",
                f"more than learning_rate_warmup_iterations, {self.learning_rate_warmup_iterations}",
                decay,
            )
        return self

    @model_validator(mode="after")
    def the_policy_loss_has_the_keys_that_it_takes(self) -> PolicyGradient:
        if self.dual_clip is not None and self.policy_loss != "ppo":
            raise contradiction("dual_clip", f"null: policy_loss {self.policy_loss} has no second clip", self.dual_clip)
        if self.clip_range_low is None and self.policy_loss != "cispo":
            rule = f"a number with policy_loss {self.policy_loss}: only cispo goes without a bound below"
            raise contradiction("clip_range_low", rule, None)
        return self

    @model_validator(mode="after")
    def gspo_is_one_of_responses(self) -> PolicyGradient:
        if self.policy_loss != "gspo":
            return self
        if self.loss_aggregation != "sequence_mean":
            rule = "sequence_mean with policy_loss gspo, whose objective counts each response once"
            raise contradiction("loss_aggregation", rule, self.loss_aggregation)
        for key in ("clip_range_low", "clip_range_high"):
            found: float = getattr(self, key)
            if found > _LARGEST_GSPO_RANGE:
                rule = (
                    f"at most {_LARGEST_GSPO_RANGE:g} with policy_loss gspo: a response's mean ratio moves less than a "
                    "token's, and would never be clipped; the paper has 3e-4 and 4e-4"
                )
                raise contradiction(key, rule, found)
        return self

    @model_validator(mode="after")
    def what_is_left_out_is_not_penalised(self) -> PolicyGradient:
        if self.mask_truncated and self.missing_eos != "none":
            rule = "none with mask_truncated: a response without an end token is left out of the loss, and so would be "
            raise contradiction("missing_eos", rule + "its penalty", self.missing_eos)
        return self


class PolicyGradientMethod(PolicyGradient):
    """One of the methods: all that they share, and how many responses to a prompt it learns from."""

    responses_per_prompt: Count

    @model_validator(mode="after")
    def prompts_fit(self) -> PolicyGradientMethod:
        if self.rollouts_per_iteration % self.responses_per_prompt:
            rule = f"a divisor of rollouts_per_iteration, {self.rollouts_per_iteration}"
            raise contradiction("responses_per_prompt", rule, self.responses_per_prompt)
        return self


class Ppo(PolicyGradientMethod):
    """Proximal policy optimisation: the baseline is a value model, the critic, whose keys these are."""

    value_learning_rate: Positive
    value_warmup_iterations: Annotated[int, Field(ge=0)]  # the policy stands still for the first ones
    gamma: Fraction
    gae_lambda: Fraction
    value_gae_lambda: Fraction | None  # of the values' returns; null: gae_lambda
    value_clip_range: Positive | None
    value_loss_coef: NotNegative  # felt only where gradient_clip cuts: the two models share no weights, AdamW no scale


class CriticFree(PolicyGradientMethod):
    """Without a value model: the other responses to a prompt are the baseline."""

    dynamic_sampling_rounds: Annotated[int, Field(ge=0)]  # of fresh prompts for those whose responses all score alike

    @model_validator(mode="after")
    def groups_have_something_to_compare(self) -> CriticFree:
        if self.responses_per_prompt < 2:
            rule = "at least 2: the responses to one prompt are compared"
            raise contradiction("responses_per_prompt", rule, self.responses_per_prompt)
        return self


class Grpo(CriticFree):
    """Group-relative policy optimisation: the mean of the prompt's responses is the baseline."""

    advantage_scale: Literal["std", "none"]  # in standard deviations of the prompt's responses, or as they are


class Rloo(CriticFree):
    """REINFORCE, leave one out: the baseline of a response is the mean of the prompt's other ones."""
