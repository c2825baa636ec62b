"""How a run is operated. No stage depends on any of it: another value here runs nothing again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from components.config.base import Positive, Section, contradiction
from components.config.scoring import FunctionName

Name = Annotated[str, Field(min_length=1)]


class TimeoutMinutes(Section):
    """How long each stage may take before it is ended, with all it has started; null for as long as it takes."""

    data_validation: Positive | None
    sft: Positive | None
    reward_model: Positive | None
    judge: Positive | None
    alignment: Positive | None  # of each cycle
    selection: Positive | None
    evaluation: Positive | None
    promotion: Positive | None

    def of(self, stage: str) -> float | None:
        """The limit of a stage by DVC's name, such as alignment@2; none of pinned data or a whole run."""
        limit: float | None = getattr(self, stage.partition("@")[0], None)
        return limit


class Approval(Section):
    """Whether people have the last word on what the gate would promote."""

    required: bool
    timeout_hours: Positive  # without an answer by then, the candidate stays one


class Budget(Section):
    """What a run may compute, in device-hours (processes x hours) or in money; without either, as much as it takes.

    A stage that would pass it, by the guess of `proximal plan`, does not begin.
    """

    device_hours: Positive | None
    cost: Positive | None  # in `currency`; with it price_per_device_hour
    price_per_device_hour: Positive | None
    currency: Name | None  # as people are told of it, such as EUR
    device: Name  # by whose speed times are guessed: cpu, for this machine, or a GPU as in `proximal plan --device`

    @model_validator(mode="after")
    def one_limit(self) -> Budget:
        if self.device_hours is not None and self.cost is not None:
            raise contradiction("cost", "null beside device_hours: one of them limits a run", self.cost)
        for key in ("price_per_device_hour", "currency"):
            value = getattr(self, key)
            if self.cost is not None and value is None:
                raise contradiction(key, "a value, where cost has one", value)
            if self.cost is None and value is not None:
                raise contradiction(key, "null without cost: nothing else asks for it", value)
        return self

    @property
    def hours(self) -> float | None:
        """The limit in device-hours; None for none."""
        if self.cost is not None and self.price_per_device_hour is not None:
            return self.cost / self.price_per_device_hour
        return self.device_hours

    def told(self, hours: float) -> str:
        """So many device-hours for people, in money where the limit is."""
        price = self.price_per_device_hour
        return f"{hours:.3g} device-hours" if price is None else f"{hours * price:.3g} {self.currency}"


class Orchestration(Section):
    """How a run is operated."""

    approval: Approval  # of a candidate that passed the gate, before it becomes champion
    budget: Budget  # of one run
    pools: dict[Name, Name | None]  # a stage (alignment: all its cycles) and the work pool that it runs on; null: here
    simulated_annotators: FunctionName | None  # module:function that judges pairs in place of people; null: none
    hand_over_remote: Name | None  # the DVC remote by which stages on other pools get their inputs and return results
    timeout_minutes: TimeoutMinutes  # of a stage, which keeps what it has stored for the next run to go on with
    meeting_timeout_seconds: Positive  # several machines wait so long for each other before a stage begins

    @model_validator(mode="after")
    def other_pools_have_a_remote(self) -> Orchestration:
        if any(self.pools.values()) and self.hand_over_remote is None:
            rule = "the name of a DVC remote: stages on other pools are handed over by it"
            raise contradiction("hand_over_remote", rule, None)
        return self

    def pool_of(self, stage: str) -> str | None:
        """The pool of a stage by DVC's name, such as alignment@2; None where the flow runs."""
        return self.pools.get(stage.partition("@")[0])
