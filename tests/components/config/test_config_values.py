"""Every value that is bad, alone or beside another, is refused at load by its dotted key."""

from __future__ import annotations

import math
from typing import Any

import pytest
from config_changes import Values, changed

from components.config import parse_params
from components.stages import STAGES

GOLD = {"source": "rubric", "weight": 1.0}
TRAINED = {"source": "trained", "weight": 1.0}
GSPO = {
    "ppo.policy_loss": "gspo",
    "ppo.loss_aggregation": "sequence_mean",
    "ppo.clip_range_low": 3e-4,
    "ppo.clip_range_high": 4e-4,
}
FUNCTION = {"source": "function", "weight": 1.0, "function": "mine:f", "batch_size": 8, "timeout_seconds": 1.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", True),
        ("seed", "1"),
        ("seed", -1),
        ("ppo.epochs", 2.5),
        ("ppo.epochs", "2"),
        ("ppo.epochs", 0),
        ("orchestration.timeout_minutes.sft", 0.0),
        ("ppo.gamma", None),
        ("ppo.gamma", 1.5),
        ("ppo.learning_rate", "fast"),
        ("ppo.learning_rate", 0.0),
        ("ppo.learning_rate", math.inf),
        ("ppo.learning_rate", math.nan),
        ("ppo.temperature", 0.0),
        ("ppo.clip_range_low", -0.2),
        ("ppo.clip_range_high", 0.0),
        ("ppo.dual_clip", 1.0),
        ("ppo.value_clip_range", 0.0),
        ("ppo.kl_estimator", "k4"),
        ("ppo.kl_control", "sometimes"),
        ("method", "sarsa"),
        ("reward_model.members", 0),
        ("reward_model.ensemble", "median"),
        ("reward_model.ensemble_std_coef", -0.5),
        ("best_of_n.first_n", 0),
        ("best_of_n.growth", 1),  # every cycle has to be another one
        ("dpo.loss", "hinge"),
        ("online_dpo.responses_per_prompt", 1),  # of one response there is no pair
        ("online_dpo.loss", "hinge"),
        ("online_dpo.temperature", 0.0),
        ("online_dpo.reference", "moving"),
        ("online_dpo.missing_eos", "drop"),
        ("dpo.beta", 0.0),
        ("dpo.label_smoothing", 0.5),  # labels would say nothing
        ("dpo.label_smoothing", -0.1),
        ("ppo.whiten_advantages", "yes"),
        ("ppo.rollouts_per_iteration", 1),  # one sequence cannot be whitened
        ("ppo.policy_loss", "trpo"),
        ("ppo.loss_aggregation", "token_sum"),
        ("ppo.mask_truncated", "yes"),
        ("ppo.value_gae_lambda", 1.1),
        ("grpo.advantage_scale", "batch"),
        ("grpo.dynamic_sampling_rounds", -1),
        ("q_learning.tau", 1.0),
        ("q_learning.polyak_alpha", 0.0),
        ("q_learning.decode_beta", -1.0),
        ("measurement.temperature", 0.0),
        ("compute.cpu_threads", 2),
        ("compute.cpu_threads.alignment", 0),
        ("language_model.scratch", []),
        ("language_model.scratch.vocabulary_size", 10),
        ("language_model.checkpoint", ""),
        ("sft", None),
        ("sft.warmup_fraction", 1.01),
        ("sft.gradient_clip", 0.0),
        ("data.rubric", "helpdesk"),  # a module:function
        ("data.rubric", "none"),
        ("data.rubric_options", [1]),
        ("judge.parts", {}),
        ("data_validation.max_reject_fraction", -0.1),
        ("data_validation.min_heldout_prompts", 1),  # of one prompt there is no interval
        ("evaluation.confidence", 95),
        ("promotion.registered_model", "policy@champion"),
    ],
)
def test_a_wrong_type_or_value_is_named_with_what_was_found(refused: Any, key: str, value: object) -> None:
    error = refused(**{key: value})
    assert error.where == f"params.yaml: {key}"
    assert error.expected and error.found == repr(value)


@pytest.mark.parametrize(
    ("key", "reason", "changes"),
    [
        ("sft.microbatch_size", "at most batch_size, 64; found 65", {"sft.batch_size": 64, "sft.microbatch_size": 65}),
        ("judge.microbatch_size", "at most batch_size", {"judge.microbatch_size": 1000}),
        ("reward_model.microbatch_size", "at most batch_size", {"reward_model.microbatch_size": 1000}),
        (
            "ppo.microbatch_size",
            "at most a minibatch, 64 (256 rollouts_per_iteration / 4 minibatches); found 65",
            {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 4, "ppo.microbatch_size": 65},
        ),
        (
            "ppo.minibatches",
            "a divisor of rollouts_per_iteration, 256; found 3",
            {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 3},
        ),
        ("ppo.minibatches", "256; found 512", {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 512}),
        (
            "ppo.responses_per_prompt",
            "a divisor of rollouts_per_iteration, 256; found 5",
            {"ppo.rollouts_per_iteration": 256, "ppo.responses_per_prompt": 5},
        ),
        (
            "grpo.responses_per_prompt",
            "at least 2: the responses to one prompt are compared; found 1",
            {"grpo.responses_per_prompt": 1},
        ),
        (
            "rloo.responses_per_prompt",
            "at least 2: the responses to one prompt are compared; found 1",
            {"rloo.responses_per_prompt": 1},
        ),
        (
            "dpo.batch_size",
            "a divisor of comparisons_per_iteration, 512; found 3",
            {"dpo.batch_size": 3, "dpo.microbatch_size": 1},
        ),
        (
            "dpo.microbatch_size",
            "at most batch_size, 32; found 64",
            {"dpo.batch_size": 32, "dpo.microbatch_size": 64},
        ),
        (
            "dpo.label_smoothing",
            "0 with loss ipo: label_smoothing belongs to loss sigmoid; found 0.1",
            {"dpo.loss": "ipo", "dpo.label_smoothing": 0.1},
        ),
        (
            "online_dpo.batch_size",
            "at most prompts_per_iteration, 64: a prompt gives one pair; found 65",
            {"online_dpo.prompts_per_iteration": 64, "online_dpo.batch_size": 65},
        ),
        (
            "online_dpo.microbatch_size",
            "at most batch_size, 32; found 33",
            {"online_dpo.batch_size": 32, "online_dpo.microbatch_size": 33},
        ),
        (
            "online_dpo.label_smoothing",
            "0 with loss ipo: label_smoothing belongs to loss sigmoid; found 0.1",
            {"online_dpo.loss": "ipo", "online_dpo.label_smoothing": 0.1},
        ),
        (
            "ppo.learning_rate_decay_iterations",
            "more than learning_rate_warmup_iterations, 5; found 5",
            {"ppo.learning_rate_warmup_iterations": 5, "ppo.learning_rate_decay_iterations": 5},
        ),
        (
            "ppo.kl_horizon_rollouts",  # the coefficient could turn negative, see components.core.kl
            "more than 0.2 * rollouts_per_iteration (51.2)",
            {"ppo.rollouts_per_iteration": 256, "ppo.kl_horizon_rollouts": 51.2},
        ),
        *(
            (f"{method}.kl_estimator", reason, {f"{method}.kl_placement": place, f"{method}.kl_estimator": estimator})
            for method in ("ppo", "grpo", "rloo")
            for place, estimator, reason in (
                ("reward", "k2", "became 1.5 in 30 iterations"),
                ("reward", "k3", "became 2.3 in 30 iterations"),
                ("loss", "k1", "became 5.6 in 30 iterations"),
            )
        ),
        *(
            ("ppo.dual_clip", f"null: policy_loss {loss} has no second clip; found 3.0", keys | {"ppo.dual_clip": 3.0})
            for loss, keys in (("gspo", GSPO), ("cispo", {"ppo.policy_loss": "cispo"}))
        ),
        ("ppo.clip_range_low", "a number with policy_loss ppo: only cispo goes without", {"ppo.clip_range_low": None}),
        ("ppo.clip_range_low", "a number with policy_loss gspo", GSPO | {"ppo.clip_range_low": None}),
        (
            "ppo.loss_aggregation",
            "sequence_mean with policy_loss gspo, whose objective counts each response once; found token_mean",
            GSPO | {"ppo.loss_aggregation": "token_mean"},
        ),
        ("ppo.clip_range_low", "at most 0.1 with policy_loss gspo", GSPO | {"ppo.clip_range_low": 0.2}),
        ("ppo.clip_range_high", "3e-4 and 4e-4; found 0.2", GSPO | {"ppo.clip_range_high": 0.2}),
        (
            "grpo.missing_eos",
            "none with mask_truncated: a response without an end token is left out of the loss, and so would be its "
            "penalty; found replace",
            {"grpo.mask_truncated": True, "grpo.missing_eos": "replace"},
        ),
        *(
            (
                f"data_validation.{key}",
                "null: the tokenizer of language_model.checkpoint scratch is",
                {f"data_validation.{key}": 9},
            )
            for key in ("max_prompt_tokens", "max_response_tokens")
        ),
        (
            "ppo.length_penalty.buffer_tokens",
            "at most limit_tokens, 8; found 9",
            {"ppo.length_penalty": {"limit_tokens": 8, "buffer_tokens": 9, "factor": 1.0}},
        ),
        (
            "q_learning.batch_size",
            "a divisor of comparisons_per_iteration, 100; found 30",
            {"q_learning.comparisons_per_iteration": 100, "q_learning.batch_size": 30},
        ),
        (
            "q_learning.microbatch_size",
            "at most batch_size, 8; found 9",
            {"q_learning.batch_size": 8, "q_learning.microbatch_size": 9},
        ),
        (
            "judge.parts.gold.source",
            "nobody knows the true reward",
            {"data.rubric": None, "judge.parts": {"gold": GOLD}},
        ),
        ("reward_model.parts", "a weight other than 0", {"reward_model.parts": {"gold": GOLD | {"weight": 0.0}}}),
        ("reward_model.parts", "one trained part", {"reward_model.parts": {"one": TRAINED, "two": TRAINED}}),
        ("reward_model.parts", "wherever it answers", {"method": "best_of_n", "reward_model.parts": {"gold": GOLD}}),
        (
            "reward_model.parts",
            "and above it",
            {"method": "best_of_n", "reward_model.parts": {"a": TRAINED | {"weight": -1.0}}},
        ),
        ("judge.files", "a change of the function", {"judge.parts": {"mine": FUNCTION}}),
        ("language_model.prompt_template", "{prompt} exactly once", {"language_model.prompt_template": "answer:"}),
        (
            "language_model.prompt_template",
            "{prompt} exactly once",
            {"language_model.prompt_template": "{prompt} {prompt}"},
        ),
        (
            "language_model.scratch.hidden_size",
            "a multiple of 2 * attention_heads (8)",
            {"language_model.scratch.hidden_size": 92, "language_model.scratch.attention_heads": 4},
        ),
        (
            "data_validation.test_fraction",
            "below 1 - validation_fraction (0.5), to leave prompts for training; found 0.5",
            {"data_validation.validation_fraction": 0.5, "data_validation.test_fraction": 0.5},
        ),
        ("reward_model.members", "at least 2 for ensemble mean_minus_std", {"reward_model.ensemble": "mean_minus_std"}),
        ("judge.members", "at least 2 for ensemble mean_minus_std", {"judge.ensemble": "mean_minus_std"}),
        (
            "judge.seed_offset",
            "another than reward_model.seed_offset: the judge must be independent; found 0",
            {"judge.seed_offset": 0},
        ),
        (
            "cycles.1.start",
            "'artifacts/sft'; found 'artifacts/alignment/1'",
            {"cycles.1.start": "artifacts/alignment/1"},
        ),
        ("cycles.2.start", "'artifacts/alignment/1'; found 'artifacts/sft'", {"cycles.2.start": "artifacts/sft"}),
        ("cycles.2.start", "'artifacts/alignment/1'; found 'present_policy'", {"cycles.2.start": "present_policy"}),
        ("cycles.1.start", "with best_of_n", {"cycles.1.start": "present_policy", "method": "best_of_n"}),
        ("cycles", "numbered '1', '2', ... in order; found []", {"cycles": {}}),
        ("cycles", "found ['2']", {"cycles": {"2": {"start": "artifacts/sft"}}}),
        (
            "cycles",
            "found ['2', '1']",
            {"cycles": {"2": {"start": "artifacts/alignment/1"}, "1": {"start": "artifacts/sft"}}},
        ),
    ],
)
def test_a_contradiction_is_named_with_its_reason(refused: Any, key: str, reason: str, changes: Values) -> None:
    error = refused(**changes)
    assert error.where == f"params.yaml: {key}"
    assert reason in f"{error.expected}; found {error.found}"


@pytest.mark.parametrize(("place", "estimator"), [("reward", "k1"), ("loss", "k2"), ("loss", "k3")])
def test_a_kl_term_that_holds_the_policy_is_taken(shipped: Values, place: str, estimator: str) -> None:
    chosen = {"ppo.kl_placement": place, "ppo.kl_estimator": estimator}
    assert parse_params(changed(shipped, chosen), "params.yaml").ppo.kl_placement == place


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("key", ["gamma", "gae_lambda", "value_learning_rate", "value_warmup_iterations"])
def test_a_key_of_the_critic_is_refused_where_there_is_none(refused: Any, method: str, key: str) -> None:
    assert refused(**{f"{method}.{key}": 1}).where == f"params.yaml: {method}.{key}"


def test_a_limit_of_time_is_of_every_cycle_and_of_no_pinned_data(shipped: Values) -> None:
    times = {"orchestration.timeout_minutes.alignment": 90.0, "orchestration.timeout_minutes.promotion": 5.0}
    limits = parse_params(changed(shipped, times), "test").orchestration.timeout_minutes
    assert [limits.of(stage) for stage in ("alignment@1", "alignment@12", "promotion", "sft")] == [
        90.0,
        90.0,
        5.0,
        None,
    ]
    assert limits.of("data.dvc") is limits.of("compare/dvc.yaml:run@ppo-1") is None
    assert set(type(limits).model_fields) == set(STAGES)
