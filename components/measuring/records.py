"""A record: one sampled response with all that was measured on it. And means over prompts.

Samples of one prompt are averaged first: the prompt is the unit of every mean and every interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from components.artifacts import read_jsonl, write_jsonl
from components.errors import ArtifactError
from components.measuring.health import Signs
from components.measuring.metrics import ENDED, ENTROPY, MEANS, SCORERS, part, parts_among


@dataclass(frozen=True)
class Record:
    """One measured response.

    Units: reward and judge in standard deviations of their scores on SFT samples; kl in nats per sequence (the k1
    estimate of this sample); entropy in mean nats per token.
    rubric: gold and its parts by name; empty where the data has no rubric.
    parts: what the parts of a scorer gave, as "reward/correct" and "judge/correct", before their weights, and 0 where
    one does not apply; empty where the scorers have but one.
    """

    prompt_id: str
    prompt: str
    kind: str | None
    sample: int
    response: str
    response_tokens: int
    ended: bool
    reward: float
    judge: float
    kl: float
    entropy: float
    rubric: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)

    def number(self, name: str) -> float:
        """What was measured under this name: a metric of records, gold, or a part of the rubric or of a scorer."""
        others = {**self.parts, **self.rubric}
        return float(others[name] if name in others else getattr(self, name))

    def numbers(self) -> dict[str, float]:
        """All that was measured, by name."""
        return {name: getattr(self, name) for name in _NUMBERS} | dict(self.parts) | dict(self.rubric)

    def columns(self) -> dict[str, Any]:
        """The record as a flat row, as it is written."""
        return {name: getattr(self, name) for name in _COLUMNS} | dict(self.parts) | dict(self.rubric)


_COLUMNS = tuple(column.name for column in fields(Record) if column.name not in ("rubric", "parts"))
_NUMBERS = tuple(name for name in _COLUMNS if name in {metric.name for metric in MEANS})


def write_records(path: Path, records: Mapping[str, Sequence[Record]]) -> None:
    """Write the records of several policies, by their names, to one file of a row a record."""
    write_jsonl(path, ({"policy": name, **record.columns()} for name, part in records.items() for record in part))


def read_records(path: Path) -> dict[str, list[Record]]:
    """What `write_records` wrote.

    Raises:
        ArtifactError: a row lacks a column.
        DataError: the file is absent, or a line of it is not JSON.
    """
    records: dict[str, list[Record]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if missing := [name for name in ("policy", *_COLUMNS) if name not in row]:
            raise ArtifactError(
                "a record of a measured response is incomplete",
                where=f"{path}, row {number}",
                expected=f"the columns policy, {', '.join(_COLUMNS)}",
                found=f"no {', '.join(missing)}",
                do="run `dvc repro --force evaluation`",
            )
        more = {name: value for name, value in row.items() if name != "policy" and name not in _COLUMNS}
        parts = {name: more.pop(name) for name in list(more) if name.startswith(SCORERS)}
        record = Record(**{name: row[name] for name in _COLUMNS}, rubric=more, parts=parts)
        records.setdefault(row["policy"], []).append(record)
    return records


def means(records: Sequence[Record]) -> dict[str, float]:
    """The mean of every number over all records."""
    columns = [record.numbers() for record in records]
    return {name: sum(column[name] for column in columns) / len(columns) for name in columns[0]}


def signs_of(records: Sequence[Record]) -> Signs:
    """What the responses of a policy show of its health."""
    figures = means(records)
    parts = {part(name).label: figures[name] for name in parts_among(records[0].rubric)}
    return Signs([record.response for record in records], figures[ENDED.name], figures[ENTROPY.name], parts)


def by_prompt(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each prompt in order of sample, prompts in order of appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.prompt_id, []).append(record)
    return {prompt: sorted(group, key=lambda record: record.sample) for prompt, group in groups.items()}


def prompt_means(records: Sequence[Record], name: str) -> dict[str, float]:
    """Prompt id -> mean of a number over the prompt's samples, prompts in order of appearance."""
    return {
        prompt: sum(record.number(name) for record in group) / len(group)
        for prompt, group in by_prompt(records).items()
    }


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
        samples = [record.sample for record in new]
        if samples != [record.sample for record in old] or len(set(samples)) < 2:
            raise ValueError(f"prompt {new_prompt} needs the same two or more samples of both policies")
        wins = [_win(mine, theirs) for mine in new for theirs in old if mine.sample != theirs.sample]
        rates.append(sum(wins) / len(wins))
    return rates


def _win(candidate: Record, sft: Record) -> float:
    if candidate.response == sft.response or candidate.judge == sft.judge:
        return 0.5
    return 1.0 if candidate.judge > sft.judge else 0.0
