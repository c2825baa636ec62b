from __future__ import annotations

from typing import Any

import pytest

from components.config import Evaluation
from components.evaluation.compare import compare, compare_by_kind, flat, headline
from components.evaluation.metrics import METRICS

Records = list[dict[str, Any]]


def test_the_layout_holds_every_metric_of_both_policies(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(sft, candidate, settings)

    assert set(comparison) == {"sft", "candidate", "difference", "win_rate"}
    for side in ("sft", "candidate", "difference"):
        assert set(comparison[side]) == {metric.name for metric in METRICS}
        assert all(set(interval) == {"mean", "low", "high"} for interval in comparison[side].values())


def test_a_gain_that_is_the_same_at_every_prompt_is_certain(
    sft: Records, candidate: Records, settings: Evaluation
) -> None:
    """The prompts differ widely, the gain does not: pairing must take the prompts' differences away."""
    for prompt, gold in zip(("p1", "p2", "p3", "p4"), (-1.0, 0.0, 0.25, 0.75), strict=True):
        for record in sft:
            record["gold"] = gold if record["prompt_id"] == prompt else record["gold"]
        for record in candidate:
            record["gold"] = gold + 0.125 if record["prompt_id"] == prompt else record["gold"]

    comparison = compare(sft, candidate, settings)

    assert comparison["difference"]["gold"] == {"mean": 0.125, "low": 0.125, "high": 0.125}
    assert comparison["sft"]["gold"]["low"] < comparison["sft"]["gold"]["high"]
    # Four of four: Wilson's lower bound is n / (n + z^2), z = 1.95996.
    assert comparison["win_rate"] == pytest.approx({"mean": 1.0, "low": 4 / (4 + 1.959964**2), "high": 1.0})


def test_the_sign_is_candidate_minus_sft(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(candidate, sft, settings)  # the roles swapped: the worse one is the candidate
    assert comparison["difference"]["gold"]["mean"] == pytest.approx(-0.3)
    assert comparison["win_rate"]["mean"] == 0.0


def test_without_a_rubric_its_metrics_are_absent(sft: Records, candidate: Records, settings: Evaluation) -> None:
    rubric = {"gold", "helpful", "harmless", "honest"}
    plain = [
        [{key: value for key, value in record.items() if key not in rubric} for record in records]
        for records in (sft, candidate)
    ]

    comparison = compare(*plain, settings)

    assert not rubric & set(comparison["sft"])
    assert "judge" in comparison["difference"]


def test_kinds_are_compared_apart(sft: Records, candidate: Records, settings: Evaluation) -> None:
    for record in candidate:
        if record["kind"] == "harmful":
            record["gold"] = 0.1

    kinds = compare_by_kind(sft, candidate, settings)

    assert list(kinds) == ["harmful", "known"]
    assert (kinds["harmful"]["prompts"], kinds["harmful"]["few"]) == (2, True)
    assert kinds["harmful"]["difference"]["gold"]["mean"] == pytest.approx(-0.4)
    assert kinds["known"]["difference"]["gold"]["mean"] == pytest.approx(0.3)


def test_a_kind_of_one_prompt_or_none_has_no_comparison(sft: Records, candidate: Records, settings: Evaluation) -> None:
    for record in (*sft, *candidate):
        record["kind"] = "known" if record["prompt_id"] == "p1" else None
    assert compare_by_kind(sft, candidate, settings) == {}


def test_flat_names_are_the_same_for_every_method(sft: Records, candidate: Records, settings: Evaluation) -> None:
    comparison = compare(sft, candidate, settings)

    names = flat(comparison)

    assert names["test/gold"] == comparison["candidate"]["gold"]["mean"]
    assert names["test/gold_low"] == comparison["candidate"]["gold"]["low"]
    assert names["test/sft/kl_high"] == comparison["sft"]["kl"]["high"]
    assert names["test/difference/honest"] == comparison["difference"]["honest"]["mean"]
    assert names["test/win_rate"] == 1.0
    assert len(names) == 3 * (3 * len(METRICS) + 1)


def test_the_headline_holds_means_alone(sft: Records, candidate: Records, settings: Evaluation) -> None:
    summary = headline(compare(sft, candidate, settings))
    assert summary["gold"] == pytest.approx(0.8)
    assert summary["win_rate"] == 1.0
    assert summary["difference"]["judge"] == pytest.approx(1.0)
