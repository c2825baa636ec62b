"""The rule of promotion. Plain records in, a decision with its reasons and figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from components.errors import DataError
from components.measuring.intervals import FEW_PROMPTS, Interval, mean_interval, paired_interval
from components.measuring.metrics import KL, RESPONSE_TOKENS, Metric, interval_text, number
from components.measuring.records import Record, means, prompt_means
from components.promotion.floors import Floor


@dataclass(frozen=True)
class Limits:
    """What a candidate must do.

    metric: on which it must win, see `metric_that_counts`.
    max_kl: nats per sequence, to the SFT policy.
    max_length_ratio: mean response length over the SFT policy's.
    attempt: the how manieth decision on the same test prompts this is, from 1; see `confidence_of_try`.
    confidence: of the intervals that people are shown, here as in every table (evaluation.confidence).
    """

    metric: Metric
    max_kl: float
    max_length_ratio: float
    attempt: int
    confidence: float

    @property
    def asked(self) -> float:
        """The confidence at which the gain must lie above zero in this try, stricter than what is shown."""
        return confidence_of_try(self.attempt, self.confidence)


@dataclass(frozen=True)
class Decision:
    """Promoted when no reason speaks against it.

    Args:
        figures: means, the gain with the interval that every table shows, and `gain_low_asked`, the lower bound at the
            confidence that this try asks for; empty if not measured.
    """

    promoted: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]


def confidence_of_try(number: int, confidence: float) -> float:
    """The confidence that the k-th decision on the same test prompts asks for, k from 1.

    Candidates that are no better win by luck in the end if only they are tried often enough. So the error
    1 - confidence is spent over all tries: the k-th gets the share 6 / (pi^2 k^2), which sums to one over all k (alpha
    spending, Foster & Stine 2008). It never runs out, and the first try still has more than half.
    """
    return 1.0 - (1.0 - confidence) * 6.0 / (math.pi * number) ** 2


def decide(
    candidate: Sequence[Record], opponent: Mapping[str, float], sft: Sequence[Record], limits: Limits
) -> Decision:
    """Promote a candidate that beats the opponent beyond the interval, near the SFT policy and not by length.

    The gain is the mean over prompts of the difference; its interval, paired by prompt and of the confidence that this
    try asks for, must lie above zero. KL and length are means over responses.

    Args:
        opponent: what counts, of whom the candidate must beat: prompt id -> mean over the prompt's samples.
    Raises:
        DataError: candidate and opponent are of different prompts, of fewer than two, or hold a NaN or an infinity.
    """
    name = limits.metric.name
    new, old = prompt_means(candidate, name), opponent
    if new.keys() != old.keys():
        odd = sorted(new.keys() ^ old.keys())
        raise DataError(
            "candidate and opponent were measured on different prompts",
            where="the records of promotion",
            expected="one set of prompts",
            found=f"{len(odd)} prompts of only one of them, such as {odd[0]}",
            do="run `dvc repro evaluation`",
        )
    pair = list(new.values()), [old[prompt] for prompt in new]
    gain = paired_interval(*pair, confidence=limits.confidence)
    asked_low = paired_interval(*pair, confidence=limits.asked).low
    of_candidate = means(candidate)
    kl = of_candidate[KL.name]
    length_ratio = of_candidate[RESPONSE_TOKENS.name] / means(sft)[RESPONSE_TOKENS.name]
    reasons = []
    if not asked_low > 0.0:
        reasons.append(_no_rise(gain, asked_low, len(new), limits))
    if not kl <= limits.max_kl:
        reasons.append(f"KL to the SFT policy is {kl:.2f} nats per sequence, above {limits.max_kl:g}")
    if not length_ratio <= limits.max_length_ratio:
        reasons.append(
            f"responses are {length_ratio:.2f} times as long as the SFT policy's, above {limits.max_length_ratio:g}"
        )
    figures = {
        **{
            f"{whose}_{name}": mean_interval(values, confidence=limits.confidence).mean
            for whose, values in zip(("candidate", "opponent"), pair, strict=True)
        },
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_low_asked": asked_low,
        "kl": kl,
        "length_ratio": length_ratio,
    }
    return Decision(not reasons, tuple(reasons), figures)


def _no_rise(gain: Interval, asked_low: float, prompts: int, limits: Limits) -> str:
    """That it fell, that it may not have moved, or that it rose less surely than this try asks."""
    name, shown = limits.metric.name, interval_text(asdict(gain), limits.metric, "+")
    if gain.high < 0.0 and prompts >= FEW_PROMPTS:
        return f"{name} fell: {shown}"
    if not gain.low > 0.0:
        return f"{name} does not rise beyond its interval: {shown}"
    low = number(asked_low, limits.metric, "+")
    return f"{name} rises by {shown}, not surely enough: {demand(limits)} is {low}, not above 0"


def with_floors(decision: Decision, floors: Sequence[Floor]) -> Decision:
    """The same with what the suites found: each that fell is one more reason."""
    fell = tuple(reason for floor in floors if (reason := floor.reason))
    figures = {name: value for floor in floors for name, value in floor.figures.items()}
    return replace(
        decision,
        promoted=decision.promoted and not fell,
        reasons=(*decision.reasons, *fell),
        figures=decision.figures | figures,
    )


def demand(limits: Limits) -> str:
    """What a try asks of the gain, in words."""
    return f"the lower bound at the {percent(limits.asked)} that try {limits.attempt} asks for"


def refuse_too_few(candidate: Sequence[Record], least: int) -> Decision | None:
    """The refusal, without figures, of a candidate measured on fewer than `least` prompts; else None."""
    prompts = len({record.prompt_id for record in candidate})
    if prompts >= least:
        return None
    return Decision(False, (f"too few prompts to decide: {prompts}, promotion.min_prompts is {least}",), {})


def percent(confidence: float) -> str:
    """A confidence as people read it: 95%, 99.2%."""
    return f"{100 * confidence:.3g}%"
