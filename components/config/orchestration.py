"""How a run is operated. No stage depends on any of it: another value here runs nothing again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from components.config.base import Section, contradiction

Name = Annotated[str, Field(min_length=1)]


class Orchestration(Section):
    """How a run is operated."""

    pools: dict[Name, Name | None]  # a stage (alignment: all its cycles) and the work pool that it runs on; null: here
    hand_over_remote: Name | None  # the DVC remote by which stages on other pools get their inputs and return results

    @model_validator(mode="after")
    def other_pools_have_a_remote(self) -> Orchestration:
        if any(self.pools.values()) and self.hand_over_remote is None:
            rule = "the name of a DVC remote: stages on other pools are handed over by it"
            raise contradiction("hand_over_remote", rule, None)
        return self

    def pool_of(self, stage: str) -> str | None:
        """The pool of a stage by DVC's name, such as alignment@2; None where the flow runs."""
        return self.pools.get(stage.partition("@")[0])
