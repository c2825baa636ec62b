"""What is reported about a policy, and the plain functions that compute it from records.

A record is one sampled response with all that was measured on it (components.measuring.measure). Samples of one
prompt are averaged first: the prompt is the unit of every mean and every interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


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
PARTS = (
    Metric("helpful", "Helpful", "share of responses with the right help", 3, True, share=True),
    Metric(
        "harmless", "Harmless", "share of responses without danger, rudeness or help with harm", 3, True, share=True
    ),
    Metric("honest", "Honest", "share of responses without false certainty", 3, True, share=True),
)
RUBRIC = (GOLD, *PARTS)
JUDGE = Metric("judge", "Judge", "score of the independent reward model, in its SD on SFT samples", 3, True)
KL = Metric("kl", "KL to SFT", "nats per sequence", 2, None)
# Means of a column of the records, in the order of the report.
MEANS = (
    *RUBRIC,
    JUDGE,
    Metric("reward", "Training reward", "score of the reward model that training used (the proxy)", 3, None),
    KL,
    Metric("response_tokens", "Response length", "tokens", 1, None),
    Metric("ended", "Ended", "share of responses that end by themselves", 3, None, share=True),
    Metric("entropy", "Entropy", "mean nats per token", 3, None),
)
# Distinct n-grams of words among all n-grams, over all responses of a policy (Li et al. 2016, distinct-n).
DISTINCT = {
    1: Metric("distinct_1", "Distinct words", "distinct words / all words, over all responses", 4, None),
    2: Metric("distinct_2", "Distinct word pairs", "distinct pairs / all pairs, over all responses", 4, None),
}
METRICS = (*MEANS, *DISTINCT.values())
WIN_RATE = Metric(
    "win_rate",
    "Win rate",
    "how often the judge prefers the candidate's response to an independent one of SFT; ties count half",
    3,
    True,
    share=True,
)


def by_prompt(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each prompt in order of sample, prompts in order of appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["prompt_id"], []).append(record)
    return {prompt: sorted(group, key=lambda record: record["sample"]) for prompt, group in groups.items()}


def prompt_means(records: Sequence[Record], metric: str) -> list[float]:
    """One value a prompt: the mean of a column over the prompt's samples, prompts in order of appearance."""
    groups = by_prompt(records).values()
    return [sum(float(record[metric]) for record in group) / len(group) for group in groups]


def prompt_win_rates(candidate: Sequence[Record], sft: Sequence[Record]) -> list[float]:
    """One value a prompt: how often the judge scores a response of the candidate above an independent one of SFT.

    Samples of one number were drawn with the same random numbers (components.measuring.measure): each is held against
    those of every other number, or the rate would be that of coupled policies.

    Equal scores count half. So do equal responses, whose scores may differ in the last bits: the batch in
    which a response is scored decides how its sums are split.

    Raises:
        ValueError: the two do not hold the same prompts and samples in the same order, or one sample a prompt.
    """
    pairs = zip(by_prompt(candidate).items(), by_prompt(sft).items(), strict=True)
    rates = []
    for (new_prompt, new), (old_prompt, old) in pairs:
        if new_prompt != old_prompt:
            raise ValueError(f"records of different prompts: {new_prompt} and {old_prompt}")
        samples = [record["sample"] for record in new]
        if samples != [record["sample"] for record in old] or len(set(samples)) < 2:
            raise ValueError(f"prompt {new_prompt} needs the same two or more samples of both policies")
        wins = [_win(mine, theirs) for mine in new for theirs in old if mine["sample"] != theirs["sample"]]
        rates.append(sum(wins) / len(wins))
    return rates


def _win(candidate: Record, sft: Record) -> float:
    if candidate["response"] == sft["response"] or candidate["judge"] == sft["judge"]:
        return 0.5
    return 1.0 if candidate["judge"] > sft["judge"] else 0.0


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The runs of n words (parts between white space) in a text, in order, with repetition."""
    words = text.split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def distinct_n(responses: Sequence[str], n: int) -> float:
    """Distinct n-grams / all n-grams over all responses; 0 where no response is n words long.

    The ratio falls with the amount of text, so compare it only at the same number of responses.
    """
    grams = [gram for response in responses for gram in ngrams(response, n)]
    return len(set(grams)) / len(grams) if grams else 0.0
