"""What a promotion came to: kept as a file for whoever tells it after the stage has ended, and said in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from components.artifacts import read_json, write_json
from components.measuring.metrics import GOLD, JUDGE, Metric, interval_text, metric_that_counts, number
from components.promotion.floors import SUITES, by_suite, floor_line

DECISION_FILE = "decision.json"
PROMOTED, REFUSED, AWAITING, BLOCKED = "promoted", "refused", "awaiting approval", "already rolled back"
ALREADY_CHAMPION, ALREADY_REFUSED, ALREADY_ASKED = "already champion", "already refused", "already awaiting approval"
_FIGURES = ("gain", "gain_low", "gain_high", "gain_low_asked", "kl", "length_ratio")
_NOT_MEASURED = "not measured"
_METRICS = {metric.name: metric for metric in (GOLD, JUDGE)}


@dataclass(frozen=True)
class Verdict:
    """What was decided of which registered version.

    Args:
        decision: promoted, refused, awaiting approval (people are asked); already rolled back, already champion,
            already refused or already awaiting approval, which decide nothing anew.
        opponent: whom the candidate was held against, in words.
        reasons: what spoke against it.
        metric: what counts, gold or judge; "" where nothing was decided anew.
        figures: of the decision; empty where none were measured.
        until: when the time to approve is over; "" where nobody is asked.
    """

    decision: str
    model: str
    version: int
    opponent: str
    reasons: tuple[str, ...] = ()
    metric: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    until: str = ""

    @property
    def is_asked(self) -> bool:
        """Whether people have the next word."""
        return self.decision in (AWAITING, ALREADY_ASKED)

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
        if self.is_asked:
            ask = f"`proximal approve {self.version} --reason ...` or `proximal reject`, until {self.until}"
            passed = f"{who} passed the gate and is no champion yet:"
            return [f"{self.decision.upper()}: {passed}", f"{measured} against {self.opponent};", ask]
        if self.decision == ALREADY_CHAMPION:
            return [f"ALREADY CHAMPION: {who} is this very policy;", "nothing was decided anew"]
        *others, last = self.reasons
        reasons = [f"{reason};" for reason in others]
        if self.decision == BLOCKED:
            return [f"ALREADY ROLLED BACK: {who} stays a candidate, because", last]
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
        suites = "".join(f", {floor_line(name, figures)}" for name, figures in by_suite(self.figures).items())
        return f"{metric.name} {old} -> {new}, {interval_text(gain, metric, '+')}{suites}"

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


def metric_of(tags: Mapping[str, str]) -> Metric:
    """The metric that counted, from the tags of a registered version."""
    return metric_that_counts({name.removeprefix("candidate_") for name in tags if name.startswith("candidate_")})


def figures_in(tags: Mapping[str, str]) -> dict[str, float]:
    """The figures of a decision, from the tags of a registered version; empty where none were measured."""
    named = (*_FIGURES, *(name for name in tags if name.startswith(("candidate_", "opponent_", SUITES))))
    return {name: float(tags[name]) for name in named if tags.get(name, _NOT_MEASURED) != _NOT_MEASURED}


def measured_nothing() -> dict[str, str]:
    """The tags of figures that were not measured: a version that is decided anew keeps none of before."""
    return dict.fromkeys(_FIGURES, _NOT_MEASURED)
