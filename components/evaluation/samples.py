"""Pairs of responses for people: all of them, those drawn by lot, those where the candidate lost most."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.measuring.metrics import JUDGE, RESPONSE_TOKENS, REWARD, rubric_metrics, scorer_metrics
from components.measuring.records import Record
from components.seeding import derive_seed

SCORES = (JUDGE.name, REWARD.name, RESPONSE_TOKENS.name)  # beside the rubric's
# What a page holds of the pairs: 600 of the shipped ones take 0.3 MB, and a browser reads 2000 at once.
MOST_PAIRS = 2000


def all_pairs(sft: Sequence[Record], candidate: Sequence[Record]) -> list[dict[str, Any]]:
    """A row a prompt and sample: both policies' response, drawn with the same random numbers, and its scores."""
    return [_row(*pair) for pair in paired(sft, candidate)]


def paired(sft: Sequence[Record], candidate: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Both policies' records of a prompt and sample, in the order of the SFT policy's."""
    after = {(record.prompt_id, record.sample): record for record in candidate}
    return ((record, after[record.prompt_id, record.sample]) for record in sft)


def drawn_by_lot(pairs: Sequence[Mapping[str, Any]], shown: int, seed: int) -> list[dict[str, Any]]:
    """At most `shown` of the pairs, each prompt's first sample.

    The kinds take turns, so that each appears as long as `shown` reaches the number of kinds.
    """
    first = [dict(pair) for pair in pairs if pair["sample"] == 0]
    random.Random(derive_seed(seed, "evaluation", "samples")).shuffle(first)
    queues: dict[str, list[dict[str, Any]]] = {}
    for pair in first:
        queues.setdefault(pair["kind"] or "", []).append(pair)
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues.values()), default=0))
        for _, queue in sorted(queues.items())
        if turn < len(queue)
    ]
    return turns[:shown]


def gain(pair: Mapping[str, Any], name: str) -> float:
    """By how much the candidate's score is above the SFT policy's."""
    return float(pair[f"candidate_{name}"] - pair[f"sft_{name}"])


def worst(pairs: Sequence[Mapping[str, Any]], name: str, shown: int) -> list[Mapping[str, Any]]:
    """The pairs where the candidate lost most by the metric `name`, the greatest loss first."""
    lost = [pair for pair in pairs if gain(pair, name) < 0]
    return sorted(lost, key=lambda pair: gain(pair, name))[:shown]


def for_page(
    pairs: Sequence[Mapping[str, Any]], lot: Sequence[Mapping[str, Any]], name: str, scores: Sequence[str]
) -> str:
    """The pairs as JSON that may stand inside a script element, in few characters.

    Of more than `MOST_PAIRS` those that gained and lost most by the metric `name` are kept, and the drawn ones.
    """
    kept = set(range(len(pairs)))
    if len(pairs) > MOST_PAIRS:
        ordered = sorted(kept, key=lambda number: gain(pairs[number], name))
        kept = {*ordered[: MOST_PAIRS // 2], *ordered[-(MOST_PAIRS - MOST_PAIRS // 2) :]}
    places = {(pair["prompt_id"], pair["sample"]): place for place, pair in enumerate(lot)}
    rows = []
    for number, pair in enumerate(pairs):
        place = places.get((pair["prompt_id"], pair["sample"]))
        if number not in kept and place is None:
            continue
        sides = [[round(float(pair[f"{side}_{score}"]), 3) for score in scores] for side in ("sft", "candidate")]
        texts = [pair["kind"], pair["prompt"], pair["sft_response"], pair["candidate_response"]]
        rows.append([*texts, *sides, round(gain(pair, name), 6), place])
    return json_in_script(rows)


def json_in_script(content: Any) -> str:
    """JSON without any "<": neither the end of the element nor a comment can begin in it."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def scores_of(names: Iterable[str]) -> list[str]:
    """The scores below a shown response, of the figures named: the rubric's, what all have, scorers' parts."""
    known = list(names)
    own, parts = ([metric.name for metric in some(known)] for some in (rubric_metrics, scorer_metrics))
    return [*own, *SCORES, *parts]


def _row(sft: Record, candidate: Record) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prompt": sft.prompt,
        "sft_response": sft.response,
        "candidate_response": candidate.response,
    }
    before, after = sft.numbers(), candidate.numbers()
    for name in scores_of(before):
        row |= {f"sft_{name}": before[name], f"candidate_{name}": after[name]}
    return row | {"kind": sft.kind, "prompt_id": sft.prompt_id, "sample": sft.sample}
