"""params.yaml as types. No value has a default here: params.yaml is the only place a value lives.

Every section is one class, frozen, and refuses unknown keys; rules between fields stand beside them. Importing this
module imports no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import ConfigError

# A method and its section in params.yaml have one name.
Method = Literal["ppo", "grpo", "rloo", "dpo", "q_learning", "best_of_n"]
METHODS: tuple[Method, ...] = get_args(Method)
POLICY_GRADIENT_METHODS: tuple[Method, ...] = ("ppo", "grpo", "rloo")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def contradiction(key: str, rule: str) -> PydanticCustomError:
    """A broken rule between keys; `key` is the one that errors name, relative to the section of the validator."""
    return PydanticCustomError("contradiction", "{rule}", {"rule": rule, "key": key})


class CpuThreads(Section):
    """Threads of each stage's processes. They are part of the result (sums split by them) and so belong to params."""

    sft: Count
    reward_model: Count
    judge: Count
    alignment: Count
    evaluation: Count
    promotion: Count


class Compute(Section):
    """Which processes compute, and on how many threads each."""

    accelerate_config: Annotated[str, Field(min_length=1)]
    cpu_threads: CpuThreads


class Data(Section):
    """What the data says beyond its text."""

    rubric: Literal["helpdesk", "randomwalks", "none"]
    graph_seed: Annotated[int, Field(ge=0)] | None  # of the graph of randomwalks; null for other data

    @model_validator(mode="after")
    def randomwalks_have_a_graph(self) -> Data:
        if (self.rubric == "randomwalks") != (self.graph_seed is not None):
            raise contradiction(
                "graph_seed",
                f"graph_seed names the graph that the rubric randomwalks judges by and belongs to no other rubric; "
                f"found {'null' if self.graph_seed is None else self.graph_seed} with rubric {self.rubric}",
            )
        return self


class DataValidation(Section):
    """Limits of the raw data, and the shares of its parts; see components.data_validation."""

    max_reject_fraction: Fraction  # of the rows of any one file; above it the stage fails
    max_prompt_characters: Count
    max_response_characters: Count
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)]  # Jaccard of word shingles
    max_near_duplicate_fraction: Fraction  # this and the next two only warn
    min_annotator_agreement: Fraction
    max_longer_wins: Annotated[float, Field(ge=0.5, le=1.0)]
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of prompts that bring no split
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    judge_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of comparisons; the reward model has the rest
    heldout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]  # of the comparisons' prompts
    heldout_pair_fraction: Annotated[float, Field(ge=0.0, lt=1.0)]  # of the comparisons of all other prompts
    min_heldout_prompts: Count  # of validation and of test; fewer give no interval to decide by

    @model_validator(mode="after")
    def prompts_remain_for_training(self) -> DataValidation:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise contradiction(
                "test_fraction",
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} "
                "must leave prompts for training: their sum must be below 1",
            )
        return self


class ScratchModel(Section):
    """A small Llama made by config, with a byte-level BPE tokenizer trained on the data."""

    vocabulary_size: Annotated[int, Field(ge=300)]
    hidden_size: Count
    intermediate_size: Count
    layers: Count
    attention_heads: Count

    @model_validator(mode="after")
    def heads_divide_hidden_size(self) -> ScratchModel:
        if self.hidden_size % (2 * self.attention_heads):
            raise contradiction(
                "hidden_size",
                f"hidden_size {self.hidden_size} must be a multiple of 2 * attention_heads "
                f"({2 * self.attention_heads}): rotary embeddings turn pairs of numbers in every head",
            )
        return self


class LanguageModel(Section):
    """Where the policy comes from, and how text becomes tokens."""

    checkpoint: Annotated[str, Field(min_length=1)]  # "scratch", a folder, or a Hugging Face name
    checkpoint_files: Annotated[str, Field(min_length=1)]  # what SFT depends on by content: the folder, or any file
    trust_remote_code: bool
    prompt_template: str
    max_prompt_tokens: Count
    max_response_tokens: Count
    scratch: ScratchModel

    @model_validator(mode="after")
    def template_holds_the_prompt(self) -> LanguageModel:
        if self.prompt_template.count("{prompt}") != 1:
            raise contradiction("prompt_template", "prompt_template must contain {prompt} exactly once")
        return self


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
            raise contradiction(
                "microbatch_size",
                f"microbatch_size {self.microbatch_size} is larger than batch_size {self.batch_size}",
            )
        return self


class Sft(Optimisation):
    """Supervised fine-tuning on demonstrations; the loss counts response tokens only."""


class RewardModel(Optimisation):
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
            raise contradiction(
                "members", f"members must be at least 2 for ensemble mean_minus_std, found {self.members}"
            )
        return self


class LengthPenalty(Section):
    """A soft limit: from limit_tokens - buffer_tokens on the score falls linearly, at limit_tokens by `factor`."""

    limit_tokens: Count
    buffer_tokens: Count
    factor: Positive

    @model_validator(mode="after")
    def buffer_lies_below_the_limit(self) -> LengthPenalty:
        if self.buffer_tokens > self.limit_tokens:
            raise contradiction(
                "buffer_tokens",
                f"buffer_tokens {self.buffer_tokens} is larger than limit_tokens {self.limit_tokens}",
            )
        return self


# Measured with scores held at 0 and kl_coef 1, from a KL of 1.25 nats; k3 in the loss ends at 0.03.
_FORCELESS = {
    ("reward", "k2"): "near it k2 has next to no force in a reward; KL 1.25 became 1.5 in 30 iterations (0.05 with k1)",
    ("reward", "k3"): "in a reward k3 pushes away from it; KL 1.25 became 2.3 in 30 iterations (0.05 with k1)",
    ("loss", "k1"): "the expected gradient of k1 is 0; KL 1.25 became 5.6 in 30 iterations (0.04 with k2)",
}


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
    reward: Literal["reward_model", "rubric"]  # rubric: the true reward, where the data has one
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
    clip_range_low: Annotated[float, Field(gt=0.0, lt=1.0)]
    clip_range_high: Positive
    dual_clip: Annotated[float, Field(gt=1.0)] | None
    entropy_coef: NotNegative
    loss_aggregation: Literal["token_mean", "sequence_mean"]
    max_update_kl_nats_per_token: Positive | None  # an update stops once it has moved the policy this far

    @model_validator(mode="after")
    def batches_fit(self) -> PolicyGradient:
        if self.rollouts_per_iteration % self.minibatches:
            raise contradiction(
                "minibatches",
                f"minibatches {self.minibatches} must divide rollouts_per_iteration {self.rollouts_per_iteration}",
            )
        minibatch = self.rollouts_per_iteration // self.minibatches
        if self.microbatch_size > minibatch:
            raise contradiction(
                "microbatch_size",
                f"microbatch_size {self.microbatch_size} is larger than a minibatch ({self.rollouts_per_iteration} "
                f"rollouts_per_iteration / {self.minibatches} minibatches = {minibatch})",
            )
        return self

    @model_validator(mode="after")
    def the_kl_term_holds_the_policy(self) -> PolicyGradient:
        reason = _FORCELESS.get((self.kl_placement, self.kl_estimator))
        if reason is not None:
            raise contradiction(
                "kl_estimator",
                f"kl_estimator {self.kl_estimator} with kl_placement {self.kl_placement} does not hold the policy at "
                f"the reference: {reason}. Take k1 in the reward, or k2 or k3 in the loss",
            )
        return self

    @model_validator(mode="after")
    def the_kl_coefficient_stays_above_zero(self) -> PolicyGradient:
        if self.kl_control == "adaptive" and self.kl_horizon_rollouts <= 0.2 * self.rollouts_per_iteration:
            raise contradiction(
                "kl_horizon_rollouts",
                f"kl_horizon_rollouts {self.kl_horizon_rollouts:g} must be more than 0.2 * rollouts_per_iteration "
                f"({0.2 * self.rollouts_per_iteration:g}), or one step could turn the KL coefficient negative",
            )
        return self

    @model_validator(mode="after")
    def the_learning_rate_rises_before_it_falls(self) -> PolicyGradient:
        decay = self.learning_rate_decay_iterations
        if decay is not None and decay <= self.learning_rate_warmup_iterations:
            raise contradiction(
                "learning_rate_decay_iterations",
                f"learning_rate_decay_iterations {decay} must be larger than learning_rate_warmup_iterations "
                f"{self.learning_rate_warmup_iterations}",
            )
        return self


class PolicyGradientMethod(PolicyGradient):
    """One of the methods: all that they share, and how many responses to a prompt it learns from."""

    responses_per_prompt: Count

    @model_validator(mode="after")
    def prompts_fit(self) -> PolicyGradientMethod:
        if self.rollouts_per_iteration % self.responses_per_prompt:
            raise contradiction(
                "responses_per_prompt",
                f"responses_per_prompt {self.responses_per_prompt} must divide rollouts_per_iteration "
                f"{self.rollouts_per_iteration}",
            )
        return self

    @property
    def advantage_estimator(self) -> Literal["gae", "grpo", "rloo"]:
        """The baseline: a learned value (GAE), or the other responses to the prompt (GRPO, RLOO)."""
        raise NotImplementedError

    @property
    def method(self) -> Method:
        """The name of the section, as errors say it."""
        return "ppo" if self.advantage_estimator == "gae" else self.advantage_estimator

    @property
    def has_value_model(self) -> bool:
        """Whether the baseline is learned."""
        return self.advantage_estimator == "gae"


class Ppo(PolicyGradientMethod):
    """Proximal policy optimisation: the baseline is a value model, the critic, whose keys these are."""

    value_learning_rate: Positive
    value_warmup_iterations: Annotated[int, Field(ge=0)]  # the policy stands still for the first ones
    gamma: Fraction
    gae_lambda: Fraction
    value_clip_range: Positive | None
    value_loss_coef: NotNegative  # felt only where gradient_clip cuts: the two models share no weights, AdamW no scale

    @property
    def advantage_estimator(self) -> Literal["gae", "grpo", "rloo"]:
        return "gae"


class CriticFree(PolicyGradientMethod):
    """Without a value model: the other responses to a prompt are the baseline."""

    @model_validator(mode="after")
    def groups_have_something_to_compare(self) -> CriticFree:
        if self.responses_per_prompt < 2:
            raise contradiction(
                "responses_per_prompt",
                f"{self.advantage_estimator} compares the responses to one prompt: responses_per_prompt must be at "
                f"least 2, found {self.responses_per_prompt}",
            )
        return self


class Grpo(CriticFree):
    """Group-relative policy optimisation: advantages in standard deviations of the prompt's responses."""

    @property
    def advantage_estimator(self) -> Literal["gae", "grpo", "rloo"]:
        return "grpo"


class Rloo(CriticFree):
    """REINFORCE, leave one out: the baseline of a response is the mean of the prompt's other ones."""

    @property
    def advantage_estimator(self) -> Literal["gae", "grpo", "rloo"]:
        return "rloo"


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
                f"batch_size {self.batch_size} must divide comparisons_per_iteration {self.comparisons_per_iteration}",
            )
        if self.microbatch_size > self.batch_size:
            raise contradiction(
                "microbatch_size",
                f"microbatch_size {self.microbatch_size} is larger than batch_size {self.batch_size}",
            )
        return self


class Dpo(ComparisonMethod):
    """Direct preference optimisation; the reference is the SFT policy."""

    loss: Literal["sigmoid", "ipo"]
    beta: Positive
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)]  # the share of labels assumed flipped

    @model_validator(mode="after")
    def ipo_has_no_label_smoothing(self) -> Dpo:
        if self.loss == "ipo" and self.label_smoothing > 0:
            raise contradiction(
                "label_smoothing",
                f"label_smoothing {self.label_smoothing} belongs to loss sigmoid: with loss ipo it must be 0",
            )
        return self


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


class Cycle(Section):
    """One cycle, by the number that is its key in `cycles`: where its policy comes from."""

    start: Annotated[str, Field(min_length=1)]


class Measurement(Section):
    """How a policy is measured, in every cycle, in the evaluation and at promotion."""

    temperature: Positive
    validation_samples_per_prompt: Count
    test_samples_per_prompt: Annotated[int, Field(ge=2)]  # the win rate holds a sample against those of other numbers
    batch_size: Count


class Selection(Section):
    """Which cycle becomes the candidate."""

    max_kl_nats_per_sequence: Positive


class Evaluation(Section):
    """The final comparison of SFT and candidate."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    shown_samples: Count


class Promotion(Section):
    """What a candidate must do to become the champion."""

    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    min_prompts: Annotated[int, Field(ge=2)]
    max_kl_nats_per_sequence: Positive
    max_length_ratio: Positive
    allow_weak_judge: bool  # whether a judge may decide that loses to "the longer answer wins", or to chance


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    compute: Compute
    data: Data
    data_validation: DataValidation
    language_model: LanguageModel
    sft: Sft
    reward_model: RewardModel
    judge: RewardModel
    method: Method
    policy_gradient: PolicyGradient
    ppo: Ppo
    grpo: Grpo
    rloo: Rloo
    dpo: Dpo
    q_learning: QLearning
    best_of_n: BestOfN
    cycles: dict[str, Cycle]
    measurement: Measurement
    selection: Selection
    evaluation: Evaluation
    promotion: Promotion

    @model_validator(mode="before")
    @classmethod
    def methods_share_what_policy_gradient_says(cls, content: Any) -> Any:
        """Each of its methods has the shared values but for those that it states itself."""
        shared = content.get("policy_gradient") if isinstance(content, dict) else None
        if not isinstance(shared, dict):
            return content
        own = {name: content[name] for name in POLICY_GRADIENT_METHODS if isinstance(content.get(name), dict)}
        return content | {name: shared | values for name, values in own.items()}

    @model_validator(mode="after")
    def cycles_form_a_chain(self) -> Params:
        numbers = list(self.cycles)
        if not numbers or numbers != [str(k) for k in range(1, len(numbers) + 1)]:
            raise contradiction("cycles", f"cycles must be numbered '1', '2', ... in order; found {numbers}")
        for k, cycle in enumerate(self.cycles.values(), start=1):
            before = "artifacts/sft" if k == 1 else f"artifacts/alignment/{k - 1}"
            if cycle.start != before:
                key = f"cycles.{k}.start"
                raise contradiction(key, f"{key} must be {before!r}; found {cycle.start!r}")
        return self

    @model_validator(mode="after")
    def judge_differs_from_reward_model(self) -> Params:
        if self.judge.seed_offset == self.reward_model.seed_offset:
            raise contradiction(
                "judge.seed_offset",
                "judge.seed_offset must differ from reward_model.seed_offset: the judge must be independent",
            )
        return self

    @model_validator(mode="after")
    def a_true_reward_has_a_rubric(self) -> Params:
        for method in POLICY_GRADIENT_METHODS:
            if getattr(self, method).reward == "rubric" and self.data.rubric == "none":
                key = f"{method}.reward"
                raise contradiction(key, f"{key} is rubric and data.rubric is none: nobody knows the true reward")
        return self

    @property
    def alignment(self) -> PolicyGradientMethod | Dpo | QLearning | BestOfN:
        """The section of the chosen method."""
        section: PolicyGradientMethod | Dpo | QLearning | BestOfN = getattr(self, self.method)
        return section

    @property
    def target_kl(self) -> float | None:
        """What the KL controller aims at, in nats per sequence; None without one."""
        settings = self.alignment
        if isinstance(settings, PolicyGradientMethod) and settings.kl_control == "adaptive":
            return settings.target_kl_nats_per_sequence
        return None

    def values(self, without: Collection[str] = ()) -> dict[str, Any]:
        """All params as plain values, of the methods the chosen one only, without the sections named."""
        others = set(METHODS) - {self.method} | {"policy_gradient"}  # the methods have its values
        return self.model_dump(mode="json", exclude=others | set(without))


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: absent, not YAML, or any key unknown, missing, of a wrong type or in contradiction; every
            fault is named by its dotted key.
    """
    try:
        content = YAML(typ="safe").load(path)  # the parser that DVC uses, so both read 1e-4 as a number
        written = YAML().load(path)  # and the places of its keys
    except FileNotFoundError as fault:
        raise ConfigError(
            "the params file is missing",
            where=str(path),
            expected="a YAML file",
            found="nothing",
            do="run from the root of the repository, or restore it with `git checkout params.yaml`",
        ) from fault
    except (YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(
            "the params file is not YAML",
            where=str(path),
            expected="YAML",
            found=" ".join(str(fault).split()),
            do="mend the line",
        ) from fault
    return _checked(content, str(path), written)


def parse_params(content: Any, where: str) -> Params:
    """Check params that were already read; `where` names their source in errors."""
    return _checked(content, where, None)


def _checked(content: Any, where: str, written: Any) -> Params:
    """The params as types; `written`: the same content with the lines of its keys, or None."""
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        faults = _once(invalid.errors(), written)
        lines = [_line(_place(fault), written) for fault in faults]
        keys = [_key(fault) or "top level" for fault in faults]
        raise ConfigError(
            "the params are not valid",
            where=where + ": " + ", ".join(f"{k} (line {n})" if n else k for k, n in zip(keys, lines, strict=True)),
            expected="; ".join(_rule(fault) for fault in faults),
            found="; ".join(_found(fault) for fault in faults),
            do="mend these keys; the shipped params.yaml shows every key",
        ) from invalid


def _once(faults: list[Any], written: Any) -> list[Any]:
    """Without those of values that a method has from `policy_gradient`: they are told there."""
    shared = {(_place(fault)[1:], fault["msg"]) for fault in faults if _place(fault)[0] == "policy_gradient"}
    return [
        fault
        for fault in faults
        if _place(fault)[0] not in POLICY_GRADIENT_METHODS
        or (_place(fault)[1:], fault["msg"]) not in shared
        or _line(_place(fault), written)
    ]


def _place(fault: Any) -> tuple[str, ...]:
    return tuple(_key(fault).split("."))


def _line(place: tuple[str, ...], written: Any) -> int | None:
    """The line where a key is written, in the section that it is named with; None where it is not."""
    section = written
    for part in place[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    positions = getattr(getattr(section, "lc", None), "data", None) or {}
    return positions[place[-1]][0] + 1 if place and place[-1] in positions else None


def _key(fault: Any) -> str:
    named = [fault["ctx"]["key"]] if fault["type"] == "contradiction" else []
    return ".".join(str(part) for part in [*fault["loc"], *named])


def _rule(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys_beside(fault["loc"]), n=1)
        return f"{'.'.join(map(str, [*fault['loc'][:-1], *near]))}, the nearest key" if near else "a key that exists"
    if fault["type"] == "missing":
        return f"a value for {_key(fault)}"
    return str(fault["msg"])


def _keys_beside(place: tuple[Any, ...]) -> list[str]:
    """The names that the section of a key has; none where the section is not one model's."""
    section: Any = Params
    for part in place[:-1]:
        field = section.model_fields.get(part)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, Section)):
            return []
    return list(section.model_fields)


def _found(fault: Any) -> str:
    if fault["type"] == "missing":
        return "no such key"
    if fault["type"] == "extra_forbidden":
        return _key(fault)
    if isinstance(fault["input"], dict):
        return "this combination"
    return repr(fault["input"])[:80]
