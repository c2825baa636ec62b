"""Prompts where no file has any: the distinct ones of the comparisons, or of the demonstrations."""

from __future__ import annotations

from hashlib import blake2b

from components.data_validation.identity import content_id
from components.data_validation.normalisation import prompt_key
from components.data_validation.reading import RawFile, Row
from components.data_validation.schemas import SPLITS, FileName
from components.data_validation.splits import kin_key

_NAMED = ("id", "prompt", "messages", "chosen", "rejected", "response", "source", "annotator", "pair")
_OF_AN_ANSWER = ("chosen", "rejected", "response")  # in a column's name: it says something of one side


def prompts_from(raw: RawFile, role: FileName) -> RawFile:
    """The distinct prompts, each where its first row stands, with the columns in which all rows of a prompt agree.

    Where rows of one prompt, or of dialogues that begin alike, are in several splits, it is in the one held out most.
    """
    first: dict[str, tuple[int, Row]] = {}  # by text as it is, of which the identity is asked only once
    distinct: dict[bytes, tuple[int, Row]] = {}
    level = _columns_of_prompts(raw.rows)
    splits: dict[str, str] | None = {} if "split" in level else None
    level.discard("split")
    for position, row in enumerate(raw.rows):
        prompt = row.get("prompt")
        if not isinstance(prompt, str):
            continue  # the row's own fault
        if prompt not in first:
            first[prompt] = distinct.setdefault(_digest(prompt_key(prompt)), (position, row))
        if splits is not None:
            kin = kin_key(row)
            splits[kin] = max(splits.get(kin, "train"), row["split"], key=SPLITS.index)
        if level:
            told = first[prompt][1]
            level -= {name for name in level if told.get(name) != row.get(name)}
    rows = []
    for _, row in distinct.values():
        made = {"id": content_id({"prompt": row["prompt"]}), "prompt": row["prompt"]}
        told = row if splits is None else row | {"split": splits[kin_key(row)]}
        names = sorted(level if splits is None else {*level, "split"})
        made |= {name: told[name] for name in ("messages", *names) if told.get(name) is not None}
        rows.append(made)
    places = [position for position, _ in distinct.values()]
    return RawFile(
        path=raw.path,
        rows=rows,
        numbers=[raw.numbers[position] for position in places],
        files=[raw.files[position] for position in places],
        bad_rows=[],
        sources=(),
        derived_from=role,
    )


def _digest(key: str) -> bytes:
    """Short: the keys of all prompts would be as large as the prompts."""
    return blake2b(key.encode("utf-8", errors="surrogatepass"), digest_size=16).digest()


def _columns_of_prompts(rows: list[Row]) -> set[str]:
    """Columns that may say something of a prompt; `split` where it names the splits that there are."""
    columns = set().union(*{frozenset(row) for row in rows}).difference(_NAMED)
    if "split" in columns and not all(row.get("split") in SPLITS for row in rows):
        columns.discard("split")
    return {name for name in columns if not any(part in name for part in _OF_AN_ANSWER)}
