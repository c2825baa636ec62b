"""Where the wall time of a run went: the stages' own spans, what DVC took around them, and the rest, the flow's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.profile import IMPORTS, OTHER

WORK = ("data", "models", "rollouts", "updates", "evaluation")
OVERHEAD = (IMPORTS, "tracking", OTHER, "DVC")


@dataclass(frozen=True)
class StageTime:
    """When a stage's task worked, in seconds of the monotonic clock, and what its process says of it.

    Args:
        spans: seconds by name, see components.profile; empty where no process of the stage wrote any.
    """

    stage: str
    begin: float
    end: float
    spans: dict[str, float]

    @property
    def columns(self) -> dict[str, float]:
        """The spans, and as DVC what they leave: DVC's own time, and the start of the processes."""
        return self.spans | {"DVC": self.end - self.begin - sum(self.spans.values())}


def shared_out(times: Sequence[StageTime]) -> dict[str, dict[str, float]]:
    """Stage -> name -> seconds of the run's wall time; where two stages work at once, each counts for half of it."""
    moments = sorted({moment for time in times for moment in (time.begin, time.end)})
    rows: dict[str, dict[str, float]] = {}
    for time in times:
        share = 0.0
        for begin, end in zip(moments, moments[1:], strict=False):
            if time.begin <= begin and end <= time.end:
                share += (end - begin) / sum(other.begin <= begin and end <= other.end for other in times)
        row = rows.setdefault(time.stage, {})  # a stage that was tried again has two times
        for name, value in time.columns.items():
            row[name] = row.get(name, 0.0) + value * share / (time.end - time.begin)
    return rows
