"""Which samples the report shows: drawn by lot, not picked by score, with every kind of prompt among them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from components.measuring.metrics import JUDGE, RESPONSE_TOKENS, REWARD, rubric_metrics
from components.measuring.records import Record
from components.seeding import derive_seed

SCORES = (JUDGE.name, REWARD.name, RESPONSE_TOKENS.name)  # beside the rubric's


def before_and_after(sft: Sequence[Record], candidate: Sequence[Record], shown: int, seed: int) -> list[dict[str, Any]]:
    """A table of at most `shown` prompts with both policies' first response and its scores.

    The kinds take turns, so that each appears as long as `shown` reaches the number of kinds.
    """
    after = {record.prompt_id: record for record in candidate if record.sample == 0}
    before = [record for record in sft if record.sample == 0]
    random.Random(derive_seed(seed, "evaluation", "samples")).shuffle(before)
    queues: dict[str, list[Record]] = {}
    for record in before:
        queues.setdefault(record.kind or "", []).append(record)
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues.values()), default=0))
        for _, queue in sorted(queues.items())
        if turn < len(queue)
    ]
    return [_row(record, after[record.prompt_id]) for record in turns[:shown]]


def scores_of(names: Iterable[str]) -> list[str]:
    """The scores that stand below a shown response, of the figures named: the rubric's, then what all records have."""
    return [*(metric.name for metric in rubric_metrics(names)), *SCORES]


def _row(sft: Record, candidate: Record) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt_id": sft.prompt_id,
        "kind": sft.kind,
        "prompt": sft.prompt,
        "sft_response": sft.response,
        "candidate_response": candidate.response,
    }
    before, after = sft.numbers(), candidate.numbers()
    for name in scores_of(before):
        row |= {f"sft_{name}": before[name], f"candidate_{name}": after[name]}
    return row
