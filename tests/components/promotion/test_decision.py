"""The rule of promotion on records made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from records_by_hand import record

from components.errors import DataError
from components.measuring.metrics import GOLD, JUDGE
from components.measuring.records import Record, prompt_means
from components.promotion.decision import Decision, Limits, confidence_of_try, decide, percent, refuse_too_few

LIMITS = Limits(metric=GOLD, max_kl=6.0, max_length_ratio=1.5, attempt=1, confidence=0.95)


def records(gold: Sequence[float], kl: float = 2.0, tokens: int = 10, samples: int = 1) -> list[Record]:
    """One prompt a value, measured `samples` times."""
    return [
        record(f"p{number}", sample, gold=value, judge=-value, kl=kl, response_tokens=tokens)
        for number, value in enumerate(gold)
        for sample in range(samples)
    ]


def decided(candidate: list[Record], opponent: list[Record], limits: Limits = LIMITS) -> Decision:
    return decide(candidate, prompt_means(opponent, limits.metric.name), records([0.0, 0.0]), limits)


def test_a_clear_win_is_promoted() -> None:
    decision = decided(records([1.0, 0.75, 1.0, 0.75], tokens=12), records([0.5, 0.25, 0.5, 0.25]))
    assert decision.promoted and decision.reasons == ()
    assert decision.figures == pytest.approx(
        {
            "candidate_gold": 0.875,
            "opponent_gold": 0.375,
            "gain": 0.5,
            "gain_low": 0.5,
            "gain_high": 0.5,
            "gain_low_asked": 0.5,
            "kl": 2.0,
            "length_ratio": 1.2,
        }
    )


def test_a_gain_within_its_interval_is_refused() -> None:
    # Differences +1, -1, +1, -1, ..., +1, +1: mean 0.2, standard error about 0.33.
    new = [1.0, 0.0] * 4 + [1.0, 1.0]
    old = [0.0, 1.0] * 4 + [0.0, 0.0]
    decision = decided(records(new), records(old))
    assert not decision.promoted
    assert decision.figures["gain"] == pytest.approx(0.2)
    assert decision.figures["gain_low"] < 0.0 < decision.figures["gain_high"]
    # t(9) at 95 % is 2.262; the differences' standard deviation is sqrt(9.6 / 9): 2.262 * 1.0328 / sqrt(10) = 0.7388.
    assert decision.reasons == ("gold does not rise beyond its interval: +0.200 [-0.539, +0.939]",)


def test_a_fall_is_called_one_where_it_is_sure() -> None:
    # 40 prompts, half fall by 0.02 and half by 0.01: mean -0.015, t(39) = 2.0227, sd 0.005064, reach 0.00162.
    new, old = [0.48, 0.49] * 20, [0.5] * 40
    assert decided(records(new), records(old)).reasons == ("gold fell: -0.015 [-0.017, -0.013]",)
    few = decided(records(new[:20]), records(old[:20]))  # too few prompts to say that anything fell
    assert few.reasons[0].startswith("gold does not rise beyond its interval: -0.015 [")
    unsure = decided(records([0.4, 0.58] * 20), records(old))  # mean -0.01, reach 0.0292
    assert unsure.reasons == ("gold does not rise beyond its interval: -0.010 [-0.039, +0.019]",)


def test_a_rise_that_is_shown_and_not_as_sure_as_the_try_asks_is_told_as_that() -> None:
    # 40 prompts of +0.40 and -0.18: mean 0.11, standard error 0.046437; t(39) is 2.0227 at 95 % and 2.8155 at the
    # 1 - 0.05 * 6 / (2 pi)^2 = 99.24 % of the second try.
    decision = decided(records([0.90, 0.32] * 20), records([0.5] * 40), dataclasses.replace(LIMITS, attempt=2))
    assert not decision.promoted
    assert decision.reasons == (
        "gold rises by +0.110 [+0.016, +0.204], not surely enough: the lower bound at the 99.2% that try 2 asks for is "
        "-0.021, not above 0",
    )
    assert decided(records([0.95, 0.45] * 20), records([0.5] * 40)).promoted


def test_no_gain_at_all_is_refused() -> None:
    same = records([0.5, 0.5, 0.5])
    assert not decided(same, same).promoted


def test_a_loss_is_refused() -> None:
    assert not decided(records([0.0, 0.0]), records([1.0, 1.0])).promoted


@pytest.mark.parametrize(("kl", "promoted"), [(6.0, True), (6.01, False)])
def test_the_kl_ceiling(kl: float, promoted: bool) -> None:
    decision = decided(records([1.0, 1.0], kl=kl), records([0.0, 0.0]))
    assert decision.promoted is promoted
    if not promoted:
        assert decision.reasons == ("KL to the SFT policy is 6.01 nats per sequence, above 6",)


@pytest.mark.parametrize(("tokens", "promoted"), [(15, True), (16, False)])
def test_the_length_ceiling_is_relative_to_the_sft_policy(tokens: int, promoted: bool) -> None:
    decision = decided(records([1.0, 1.0], tokens=tokens), records([0.0, 0.0], tokens=100))
    assert decision.promoted is promoted
    if not promoted:
        assert decision.reasons == ("responses are 1.60 times as long as the SFT policy's, above 1.5",)


def test_every_reason_is_given() -> None:
    decision = decided(records([0.0, 0.0], kl=9.0, tokens=50), records([1.0, 1.0]))
    assert len(decision.reasons) == 3


def test_without_a_rubric_the_judge_decides() -> None:
    limits = dataclasses.replace(LIMITS, metric=JUDGE)  # here the judge is minus gold
    assert not decided(records([1.0, 1.0]), records([0.0, 0.0]), limits).promoted
    decision = decided(records([0.0, 0.0]), records([1.0, 1.0]), limits)
    assert decision.promoted and decision.figures["candidate_judge"] == 0.0


def test_samples_of_a_prompt_count_once_and_prompts_pair_by_id() -> None:
    # The candidate wins clearly on each of two prompts. Drawn by sample instead of by prompt, or paired in
    # order of appearance instead of by id, the interval would not be a point.
    new = records([1.0, 5.0], samples=3)
    old = list(reversed(records([0.0, 4.0])))
    decision = decided(new, old)
    assert (decision.figures["gain_low"], decision.figures["gain_high"]) == (1.0, 1.0)


def test_prompts_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="different prompts"):
        decided(records([1.0, 1.0, 1.0]), records([0.0, 0.0]))


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        decided(records([1.0, float("nan")]), records([0.0, 0.0]))


def test_too_few_prompts_are_refused_by_name_however_often_each_was_sampled() -> None:
    refused = refuse_too_few(records([1.0] * 29, samples=2), 30)
    assert refused == Decision(False, ("too few prompts to decide: 29, promotion.min_prompts is 30",), {})
    assert refuse_too_few(records([1.0] * 30), 30) is None


def test_the_error_is_spent_over_all_tries() -> None:
    spent = [1.0 - confidence_of_try(number, 0.95) for number in range(1, 10_001)]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > 0.05 / 2
    assert 0.0499 < sum(spent) < 0.05


def test_fifty_equal_candidates_are_promoted_no_more_often_than_one_may_be() -> None:
    """As the gate does it: the champion stays until it is beaten, on the same 60 prompts, whose luck is its own."""
    random = np.random.default_rng(1)
    families, falsely = 100, {True: 0, False: 0}
    for _ in range(families):
        candidates = random.normal(size=(51, 60)) + random.normal(size=60)
        opponent = records(candidates[0].tolist())
        for spends in falsely:
            for number, gold in enumerate(candidates[1:], start=1):
                limits = dataclasses.replace(LIMITS, attempt=number)
                decision = decided(records(gold.tolist()), opponent, limits)
                if decision.figures["gain_low_asked" if spends else "gain_low"] > 0.0:
                    assert decision.promoted or not spends
                    falsely[spends] += 1
                    break
    # At most 0.025 in expectation: more than 8 of 100 would be chance once in a thousand times.
    assert falsely[True] <= 8
    assert falsely[False] >= 15  # what happens without


def test_a_confidence_reads_as_people_write_it() -> None:
    assert (percent(0.95), percent(confidence_of_try(1, 0.95)), percent(confidence_of_try(2, 0.95))) == (
        "95%",
        "97%",
        "99.2%",
    )
