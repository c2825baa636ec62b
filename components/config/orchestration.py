"""How a run is operated. No stage depends on any of it: another value here runs nothing again."""

from __future__ import annotations

from components.config.base import Positive, Section


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


class Orchestration(Section):
    """How a run is operated."""

    approval: Approval  # of a candidate that passed the gate, before it becomes champion
    timeout_minutes: TimeoutMinutes  # of a stage, which keeps what it has stored for the next run to go on with
