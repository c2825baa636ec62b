"""What is reported about a policy: the one table of figures, and which of them counts.

A rubric brings parts of its own beside gold: whatever a table of figures does not name here is one of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A reported figure. `more_is_better` is None where neither direction is good in itself.

    share: of responses, so that a prompt's value is from 0 to 1 and the interval is one of shares.
    """

    name: str
    label: str
    meaning: str
    decimals: int
    more_is_better: bool | None
    share: bool = False


GOLD = Metric("gold", "Gold", "the rubric's overall score, never seen in training", 3, True)
JUDGE = Metric("judge", "Judge", "score of the independent reward model, in its SD on SFT samples", 3, True)
REWARD = Metric("reward", "Training reward", "score of the reward model that training used (the proxy)", 3, None)
KL = Metric("kl", "KL to SFT", "nats per sequence", 2, None)
RESPONSE_TOKENS = Metric("response_tokens", "Response length", "tokens", 1, None)
ENDED = Metric("ended", "Ended", "share of responses that end by themselves", 3, None, share=True)
ENTROPY = Metric("entropy", "Entropy", "mean nats per token", 3, None)
# What is measured with or without a rubric: means of a column of the records, in the order of the report.
MEANS = (JUDGE, REWARD, KL, RESPONSE_TOKENS, ENDED, ENTROPY)
# Distinct n-grams of words among all n-grams, over all responses of a policy (Li et al. 2016, distinct-n).
DISTINCT = {
    1: Metric("distinct_1", "Distinct words", "distinct words / all words, over all responses", 4, None),
    2: Metric("distinct_2", "Distinct word pairs", "distinct pairs / all pairs, over all responses", 4, None),
}
WIN_RATE = Metric(
    "win_rate",
    "Win rate",
    "how often the judge prefers the candidate's response to an independent one of SFT; ties count half",
    3,
    True,
    share=True,
)
# The few by which people compare policies at a glance, where they are measured.
COMPARED_BY = (GOLD, JUDGE, KL, WIN_RATE)
# The columns of a record beside those of a rubric.
MEASURED = frozenset(
    {"prompt_id", "prompt", "kind", "sample", "response", "policy"} | {metric.name for metric in MEANS}
)
# What the parts of a scorer begin with that is made of several: "reward/correct".
SCORERS = (f"{REWARD.name}/", f"{JUDGE.name}/")
_SCORER_PART = "a part of this score, before its weight; 0 where the part does not apply"
_NAMED = {metric.name for metric in (GOLD, *MEANS, *DISTINCT.values(), WIN_RATE)}


def number(value: float, metric: Metric, sign: str = "") -> str:
    """A value as people read it, with the metric's decimals; `sign="+"` for a difference."""
    return f"{value:{sign}.{metric.decimals}f}"


def interval_text(figure: Mapping[str, float], metric: Metric, sign: str = "") -> str:
    """mean [low, high], in every place of the same figure to the same digit."""
    mean, low, high = (number(figure[key], metric, sign) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def parts_among(names: Iterable[str]) -> list[str]:
    """The parts of the rubric among the names of measured figures, in their order."""
    return [name for name in names if name not in _NAMED and not name.startswith(SCORERS)]


def part(name: str, meanings: Mapping[str, str] | None = None) -> Metric:
    """A part of the rubric as a metric; `meanings` as the rubric gives them."""
    meaning = (meanings or {}).get(name, "a part of the rubric")
    return Metric(name, name.replace("_", " ").capitalize(), meaning, 3, True)


def scorer_metrics(names: Iterable[str]) -> list[Metric]:
    """The parts of the reward model and of the judge among the names, where these have several."""
    return [Metric(name, _words(name), _SCORER_PART, 3, None) for name in names if name.startswith(SCORERS)]


def _words(name: str) -> str:
    scorer, _, part_name = name.partition("/")
    return f"{REWARD.label if scorer == REWARD.name else JUDGE.label}: {part_name.replace('_', ' ')}"


def rubric_metrics(names: Iterable[str], meanings: Mapping[str, str] | None = None) -> list[Metric]:
    """Gold and its parts, as far as they are among the names."""
    known = list(names)
    return [*([GOLD] if GOLD.name in known else []), *(part(name, meanings) for name in parts_among(known))]


def metrics_among(names: Iterable[str], meanings: Mapping[str, str] | None = None) -> list[Metric]:
    """The metrics with these names in the order of the report: the rubric's, the other means, scorers', distinct-n."""
    known = list(names)
    means, distinct = ([metric for metric in some if metric.name in known] for some in (MEANS, DISTINCT.values()))
    return [*rubric_metrics(known, meanings), *means, *scorer_metrics(known), *distinct]


def metric_that_counts(names: Container[str]) -> Metric:
    """By what a policy is judged in the end: gold where there is a rubric, else the judge. Decided here alone.

    Args:
        names: of the figures that were measured.
    """
    return GOLD if GOLD.name in names else JUDGE
