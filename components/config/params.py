"""The whole of params.yaml, and the rules between its sections."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from components.config.base import METHODS, POLICY_GRADIENT_METHODS, Method, Section, contradiction
from components.config.comparisons import BestOfN, Dpo, QLearning
from components.config.compute import Compute
from components.config.data import Data, DataValidation
from components.config.generation import Generation, Own
from components.config.measuring import CycleStart, Evaluation, Measurement, Promotion, Selection
from components.config.models import LanguageModel
from components.config.online import OnlineDpo
from components.config.orchestration import Orchestration
from components.config.policy_gradient import Grpo, PolicyGradient, PolicyGradientMethod, Ppo, Rloo
from components.config.scoring import Part, Rubric, Trained
from components.config.training import RewardModel, Sft

MethodSettings = PolicyGradientMethod | Dpo | OnlineDpo | QLearning | BestOfN


PRESENT_POLICY = "present_policy"  # where a run's first cycle may begin in place of the SFT policy
GOES_ON_FROM_NONE = ("best_of_n", "q_learning")  # whatever policy there is: what they give is made of the SFT policy


class Shared(NamedTuple):
    """What several stages read: a stage that reads one of these declares it in dvc.yaml."""

    seed: int
    data: Data
    language_model: LanguageModel
    measurement: Measurement
    generation: Generation


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
    # Of the methods, only the chosen one's section has to be there.
    ppo: Ppo | None
    grpo: Grpo | None
    rloo: Rloo | None
    dpo: Dpo | None
    online_dpo: OnlineDpo | None
    q_learning: QLearning | None
    best_of_n: BestOfN | None
    generation: Generation
    cycles: dict[str, CycleStart]
    measurement: Measurement
    selection: Selection
    evaluation: Evaluation
    promotion: Promotion
    orchestration: Orchestration

    @model_validator(mode="before")
    @classmethod
    def methods_share_what_policy_gradient_says(cls, content: Any) -> Any:
        """Each of its methods has the shared values but for those that it states itself."""
        shared = content.get("policy_gradient") if isinstance(content, dict) else None
        if not isinstance(shared, dict):
            return content
        own = {name: content[name] for name in POLICY_GRADIENT_METHODS if isinstance(content.get(name), dict)}
        return content | {name: shared | values for name, values in own.items()}

    @model_validator(mode="before")
    @classmethod
    def other_methods_may_be_absent(cls, content: Any) -> Any:
        """So that a params file need not hold every method there is."""
        return dict.fromkeys(METHODS) | content if isinstance(content, dict) else content

    @model_validator(mode="after")
    def the_chosen_method_has_a_section(self) -> Params:
        if getattr(self, self.method) is None:
            raise contradiction(self.method, f"a section: {self.method} is the chosen method", "none")
        return self

    @model_validator(mode="after")
    def cycles_form_a_chain(self) -> Params:
        numbers = list(self.cycles)
        if not numbers or numbers != [str(k) for k in range(1, len(numbers) + 1)]:
            raise contradiction("cycles", "numbered '1', '2', ... in order", numbers)
        for k, cycle in enumerate(self.cycles.values(), start=1):
            before = "artifacts/sft" if k == 1 else f"artifacts/alignment/{k - 1}"
            if cycle.start != before and not (k == 1 and cycle.start == PRESENT_POLICY):
                raise contradiction(f"cycles.{k}.start", repr(before), repr(cycle.start))
        if self.cycles["1"].start == PRESENT_POLICY and self.method in GOES_ON_FROM_NONE:
            rule = f"'artifacts/sft' with {self.method}: what it gives is made of the SFT policy, whatever came after"
            raise contradiction("cycles.1.start", rule, repr(PRESENT_POLICY))
        return self

    @model_validator(mode="after")
    def judge_differs_from_reward_model(self) -> Params:
        if self.judge.seed_offset == self.reward_model.seed_offset:
            raise contradiction(
                "judge.seed_offset",
                "another than reward_model.seed_offset: the judge must be independent",
                self.judge.seed_offset,
            )
        return self

    @model_validator(mode="after")
    def a_scratch_model_is_trained(self) -> Params:
        if self.sft.epochs == 0 and self.language_model.checkpoint == "scratch":
            raise contradiction("sft.epochs", "1 or more: a scratch model is made of random numbers", 0)
        return self

    @model_validator(mode="after")
    def a_true_reward_has_a_rubric(self) -> Params:
        for section in ("reward_model", "judge"):
            parts: Mapping[str, Part] = getattr(self, section).parts
            for name, part in parts.items():
                if isinstance(part, Rubric) and self.data.rubric is None:
                    rule = "another source: data.rubric is null, and nobody knows the true reward"
                    raise contradiction(f"{section}.parts.{name}.source", rule, part.source)
        return self

    @model_validator(mode="after")
    def what_chooses_for_people_reads_their_prompts_alone(self) -> Params:
        """A stored policy answers anybody, without the columns of rows, the repository's code or an endpoint."""
        parts = {name: part for name, part in self.reward_model.parts.items() if part.weight}
        fit = all(isinstance(part, Trained) and part.weight > 0 for part in parts.values())
        if self.method == "best_of_n" and not fit:
            rule = "a trained part alone with a weight other than 0, and above it: the policy of best_of_n takes its "
            raise contradiction("reward_model.parts", rule + "scorer along to wherever it answers", ", ".join(parts))
        return self

    @model_validator(mode="after")
    def q_learning_looks_at_the_whole_vocabulary(self) -> Params:
        if self.method == "q_learning" and self.language_model.vocabulary_chunk is not None:
            rule = "null: the heads of q_learning have a number for every token of the vocabulary"
            raise contradiction("language_model.vocabulary_chunk", rule, self.language_model.vocabulary_chunk)
        return self

    @model_validator(mode="after")
    def an_engine_of_rollouts_has_rollouts(self) -> Params:
        if isinstance(self.generation, Own):
            return self
        if self.method not in (*POLICY_GRADIENT_METHODS, "online_dpo"):
            rule = f"own: {self.method} collects no rollouts, and all that is measured is sampled by our own engine"
            raise contradiction("generation.engine", rule, self.generation.engine)
        cap = self.generation.importance_weight_cap
        if self.method == "online_dpo" and cap is not None:
            rule = "null: the loss of online_dpo takes pairs as they are, and has no tokens to weigh"
            raise contradiction("generation.importance_weight_cap", rule, cap)
        return self

    @model_validator(mode="after")
    def the_engine_takes_the_adapter(self) -> Params:
        adapter = self.language_model.adapter
        if not isinstance(self.generation, Own) and adapter is not None and adapter.kind == "dora":
            raise contradiction("language_model.adapter.kind", "lora or rslora: vLLM takes no other", adapter.kind)
        return self

    @model_validator(mode="after")
    def limits_in_tokens_have_a_tokenizer(self) -> Params:
        for key in ("max_prompt_tokens", "max_response_tokens"):
            limit: int | None = getattr(self.data_validation, key)
            if limit is not None and self.language_model.checkpoint == "scratch":
                rule = "null: the tokenizer of language_model.checkpoint scratch is trained on the validated data"
                raise contradiction(f"data_validation.{key}", rule, limit)
        return self

    @property
    def trained_on_comparisons(self) -> tuple[str, ...]:
        """What is: the reward model and the judge where they have a trained part, a method that takes no reward."""
        scorers = {"reward_model": self.reward_model, "judge": self.judge}
        trained = [name for name, scorer in scorers.items() if scorer.is_trained]
        return (*trained, *([self.method] if self.method in ("dpo", "q_learning") else []))

    @property
    def shared(self) -> Shared:
        """What several stages read."""
        return Shared(self.seed, self.data, self.language_model, self.measurement, self.generation)

    @property
    def alignment(self) -> MethodSettings:
        """The section of the chosen method."""
        section: MethodSettings = getattr(self, self.method)
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
