"""Which samples the report shows: drawn by lot, not picked by score, with every kind of prompt among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from components.evaluation.metrics import RUBRIC, Record
from components.seeding import derive_seed

SCORES = (*(metric.name for metric in RUBRIC), "judge", "reward", "response_tokens")


def before_and_after(sft: Sequence[Record], candidate: Sequence[Record], shown: int, seed: int) -> list[dict[str, Any]]:
    """A table of at most `shown` prompts with both policies' first response and its scores.

    The kinds take turns, so that each appears as long as `shown` reaches the number of kinds.
    """
    after = {record["prompt_id"]: record for record in candidate if record["sample"] == 0}
    before = [record for record in sft if record["sample"] == 0]
    random.Random(derive_seed(seed, "evaluation", "samples")).shuffle(before)
    queues: dict[str, list[Record]] = {}
    for record in before:
        queues.setdefault(record["kind"] or "", []).append(record)
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues.values()), default=0))
        for _, queue in sorted(queues.items())
        if turn < len(queue)
    ]
    return [_row(record, after[record["prompt_id"]]) for record in turns[:shown]]


def _row(sft: Record, candidate: Record) -> dict[str, Any]:
    row = {
        "prompt_id": sft["prompt_id"],
        "kind": sft["kind"],
        "prompt": sft["prompt"],
        "sft_response": sft["response"],
        "candidate_response": candidate["response"],
    }
    for name in (score for score in SCORES if score in sft):
        row |= {f"sft_{name}": sft[name], f"candidate_{name}": candidate[name]}
    return row
