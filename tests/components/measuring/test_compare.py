from __future__ import annotations

import pytest
from records_by_hand import RUBRIC, all_changed, without

from components.config import Evaluation
from components.measuring.compare import compare, compare_by_kind, flat, headline
from components.measuring.metrics import DISTINCT, MEANS
from components.measuring.records import Record

Records = list[Record]
NAMES = {*RUBRIC, *(metric.name for metric in (*MEANS, *DISTINCT.values()))}


def test_the_layout_holds_every_metric_of_both_policies(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(sft, candidate, settings)

    assert set(comparison) == {"sft", "candidate", "difference", "win_rate"}
    for side in ("sft", "candidate", "difference"):
        assert set(comparison[side]) == NAMES
        assert all(set(interval) == {"mean", "low", "high"} for interval in comparison[side].values())


def test_a_gain_that_is_the_same_at_every_prompt_is_certain(
    sft: Records, candidate: Records, settings: Evaluation
) -> None:
    """The prompts differ widely, the gain does not: pairing must take the prompts' differences away."""
    gold = dict(zip(("p1", "p2", "p3", "p4"), (-1.0, 0.0, 0.25, 0.75), strict=True))
    old = all_changed(sft, lambda record: {"gold": gold[record.prompt_id]})
    new = all_changed(candidate, lambda record: {"gold": gold[record.prompt_id] + 0.125})

    comparison = compare(old, new, settings)

    assert comparison["difference"]["gold"] == {"mean": 0.125, "low": 0.125, "high": 0.125}
    assert comparison["sft"]["gold"]["low"] < comparison["sft"]["gold"]["high"]
    # Four of four: Wilson's lower bound is n / (n + z^2), z = 1.95996.
    assert comparison["win_rate"] == pytest.approx({"mean": 1.0, "low": 4 / (4 + 1.959964**2), "high": 1.0})


def test_the_sign_is_candidate_minus_sft(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(candidate, sft, settings)  # the roles swapped: the worse one is the candidate
    assert comparison["difference"]["gold"]["mean"] == pytest.approx(-0.3)
    assert comparison["win_rate"]["mean"] == 0.0


def test_without_a_rubric_its_metrics_are_absent(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(without(sft, *RUBRIC), without(candidate, *RUBRIC), settings)

    assert not RUBRIC.keys() & set(comparison["sft"])
    assert "judge" in comparison["difference"]


def test_kinds_are_compared_apart(sft: Records, candidate: Records, settings: Evaluation) -> None:
    worse = all_changed(candidate, lambda record: {"gold": 0.1} if record.kind == "harmful" else {})

    kinds = compare_by_kind(sft, worse, settings)

    assert list(kinds) == ["harmful", "known"]
    assert (kinds["harmful"]["prompts"], kinds["harmful"]["few"]) == (2, True)
    assert kinds["harmful"]["difference"]["gold"]["mean"] == pytest.approx(-0.4)
    assert kinds["known"]["difference"]["gold"]["mean"] == pytest.approx(0.3)


def test_a_kind_of_one_prompt_or_none_has_no_comparison(sft: Records, candidate: Records, settings: Evaluation) -> None:
    sides = (
        all_changed(records, lambda record: {"kind": "known" if record.prompt_id == "p1" else None})
        for records in (sft, candidate)
    )
    assert compare_by_kind(*sides, settings) == {}


def test_flat_names_are_the_same_for_every_method(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(sft, candidate, settings)

    names = flat(comparison)

    assert list(names)[:4] == ["eval/gold", "eval/judge", "eval/kl", "eval/win_rate"]
    assert names["eval/gold"] == round(comparison["candidate"]["gold"]["mean"], 4)
    assert names["eval/win_rate"] == 1.0
    assert names["eval_more/honest"] == round(comparison["candidate"]["honest"]["mean"], 4)
    assert names["gain/kl"] == round(comparison["difference"]["kl"]["mean"], 4)
    assert names["gain/honest"] == round(comparison["difference"]["honest"]["mean"], 4)
    assert len(names) == 2 * len(NAMES) + 1


def test_the_headline_holds_means_alone(sft: Records, candidate: Records, settings: Evaluation) -> None:
    summary = headline(compare(sft, candidate, settings))
    assert summary["gold"] == pytest.approx(0.8)
    assert summary["win_rate"] == 1.0
    assert summary["difference"]["judge"] == pytest.approx(1.0)


def test_a_part_that_says_yes_or_no_is_a_share_and_any_other_a_mean(
    sft: Records, candidate: Records, settings: Evaluation
) -> None:
    """Helpful is 1 everywhere: Wilson gives it a width (4 / (4 + z^2) to 1), a t-interval none."""
    found = compare(sft, candidate, settings)["candidate"]["helpful"]
    assert found == pytest.approx({"mean": 1.0, "low": 4 / (4 + 1.959964**2), "high": 1.0})
    half = all_changed(candidate, lambda record: {"helpful": 0.5})
    assert compare(sft, half, settings)["candidate"]["helpful"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
