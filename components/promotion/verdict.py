"""What a promotion came to: kept as a file for whoever tells it after the stage has ended, and said in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from components.artifacts import read_json, write_json
from components.measuring.metrics import GOLD, JUDGE, interval_text, number

DECISION_FILE = "decision.json"
PROMOTED, REFUSED = "promoted", "refused"
ALREADY_CHAMPION, ALREADY_REFUSED = "already champion", "already refused"
_METRICS = {metric.name: metric for metric in (GOLD, JUDGE)}


@dataclass(frozen=True)
class Verdict:
    """What was decided of which registered version.

    Args:
        decision: promoted, refused, already champion or already refused; the last two decide nothing anew.
        opponent: whom the candidate was held against, in words.
        reasons: what spoke against it.
        metric: what counts, gold or judge; "" where nothing was decided anew.
        figures: of the decision; empty where none were measured.
    """

    decision: str
    model: str
    version: int
    opponent: str
    reasons: tuple[str, ...] = ()
    metric: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_champion(self) -> bool:
        return self.decision in (PROMOTED, ALREADY_CHAMPION)

    def sentence(self) -> str:
        """The verdict with why, against whom, and by how much."""
        return " ".join(self.lines())

    def lines(self) -> list[str]:
        """The same where a line is short: what was decided, then each reason and figure."""
        who, measured = f"{self.model} version {self.version}", self._measured()
        if self.decision == PROMOTED:
            return [f"PROMOTED: {who} is the champion:", f"{measured} against {self.opponent}"]
        if self.decision == ALREADY_CHAMPION:
            return [f"ALREADY CHAMPION: {who} is this very policy;", "nothing was decided anew"]
        *others, last = self.reasons
        reasons = [f"{reason};" for reason in others]
        if self.decision == ALREADY_REFUSED:
            end = [f"{last};", "nothing was decided anew"]
            return [f"ALREADY REFUSED: {who} stays a candidate, because", *reasons, *end]
        against = [f"({measured} against {self.opponent})"] if measured else []
        return [f"REFUSED: {who} stays a candidate, because", *reasons, last, *against]

    def _measured(self) -> str:
        if not self.figures:
            return ""
        metric = _METRICS[self.metric]
        old, new = (number(self.figures[f"{whose}_{metric.name}"], metric) for whose in ("opponent", "candidate"))
        gain = {"mean": self.figures["gain"], "low": self.figures["gain_low"], "high": self.figures["gain_high"]}
        return f"{metric.name} {old} -> {new}, {interval_text(gain, metric, '+')}"

    def tags(self) -> dict[str, str]:
        """The verdict as tags of a run, for people."""
        model = f"{self.model} version {self.version}"
        return {"decision": self.decision, "model": model, "verdict": self.sentence()}

    def write(self, folder: Path) -> None:
        """Keep it in a folder, over the last one."""
        write_json(folder / DECISION_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Verdict:
        """What `write` kept."""
        content = read_json(folder / DECISION_FILE)
        return cls(**content | {"reasons": tuple(content["reasons"])})
