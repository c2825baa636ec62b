"""Comparisons that the cut makes equal teach nothing, measure nothing, and are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import read_jsonl, write_jsonl
from components.config import Params
from components.errors import DataError
from components.models.loading import load_codec
from components.place import Place
from components.stages import perform

LONG = "yes " * 40


def cut_alike(number: int) -> dict[str, Any]:
    return {"id": f"long {number}", "prompt": "my printer", "chosen": LONG + "please", "rejected": LONG + "no"}


def test_they_are_left_out_counted_and_named(
    world: Path, change_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    params = change_params()
    metrics = []
    for more in ([], [cut_alike(1), cut_alike(2)]):
        for part in ("", "_heldout"):
            source = Place().clean / f"comparisons_judge{part}.jsonl"
            write_jsonl(source, [*read_jsonl(source), *more])
        perform("judge", params, Place())
        metrics.append(json.loads((Place().judge / "metrics.json").read_text()))
    without, with_them = metrics
    told = {"comparisons_cut_alike", "truncated_prompts_fraction", "truncated_responses_fraction"}
    assert {name: value for name, value in with_them.items() if name not in told} == {
        name: value for name, value in without.items() if name not in told
    }
    assert (without["comparisons_cut_alike"], with_them["comparisons_cut_alike"]) == (0, 2)
    codec, rows = load_codec(Place().sft / "policy"), read_jsonl(Place().clean / "comparisons_judge.jsonl")
    responses = codec.encode_responses([row[side] for row in rows for side in ("chosen", "rejected")])
    cut = sum(row[-1] != codec.eos_id for row in responses) / len(responses)
    assert (
        with_them["truncated_responses_fraction"] == pytest.approx(cut)
        and cut > without["truncated_responses_fraction"]
    )
    assert "comparisons_judge.jsonl: 2 of" in caplog.text and "held-out comparisons: 2 of" in caplog.text
    assert "long 1, long 2" in caplog.text


def test_none_left_is_refused_by_name(world: Path, change_params: Callable[..., Params]) -> None:
    write_jsonl(Place().clean / "comparisons_judge.jsonl", [cut_alike(number) for number in range(8)])
    with pytest.raises(DataError, match=r"(?s)comparisons_judge\.jsonl.*max_response_tokens.*long 0"):
        perform("judge", change_params(), Place())
