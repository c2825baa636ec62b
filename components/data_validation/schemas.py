"""The pandera schemas of the raw files, and the per-row faults they find, all at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Literal

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from components.config import DataValidation
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.normalisation import has_encoding_fault, visible
from components.data_validation.reading import Row

FileName = Literal["prompts", "demonstrations", "comparisons"]
FILES: tuple[FileName, ...] = ("prompts", "demonstrations", "comparisons")
SPLITS = ("train", "validation", "test")

# Name of a check -> the kind of fault that it finds, and what there is to say of it.
_FAULTS = {
    "not_nullable": (FaultKind.SCHEMA, "has no value"),  # pandera's own name
    "is_text": (FaultKind.SCHEMA, "is not text"),
    "is_not_empty": (FaultKind.EMPTY_OR_OVERLONG, "is empty"),
    "is_short": (FaultKind.EMPTY_OR_OVERLONG, "is too long (over {} characters)"),
    "is_well_encoded": (FaultKind.ENCODING, "has an encoding fault"),
    "id_is_new": (FaultKind.SCHEMA, "occurs in an earlier row"),
    "split_is_known": (FaultKind.SCHEMA, f"is none of {', '.join(SPLITS)}"),
    "row_is_new": (FaultKind.DUPLICATE, "the row repeats an earlier one"),
    "responses_differ": (FaultKind.EQUAL_RESPONSES, "chosen equals rejected"),
    "responses_look_different": (
        FaultKind.LOOK_EQUAL,
        "chosen and rejected differ only in what cannot be seen",
    ),
    "fits_its_pair": (FaultKind.SCHEMA, "prompt or responses differ from the other rows of the pair"),
}


class MissingColumns(Exception):
    """Columns that no row has. Internal: the caller names the file and turns it into a DataError."""

    def __init__(self, columns: list[str]) -> None:
        super().__init__(columns)
        self.columns = columns


def frame_of(rows: list[Row]) -> pd.DataFrame:
    """Rows as a frame of plain Python objects: no value is converted before it is checked."""
    return pd.DataFrame(rows, dtype=object)


def schema_of(file: FileName, limits: DataValidation) -> pa.DataFrameSchema:
    """The schema of a raw file. Columns it does not name are allowed and kept as they are."""
    label = _text(required=True)
    optional = _text(required=False, nullable=True)
    identity = _text(_check("id_is_new", lambda ids: ~ids.map(repr).duplicated()), required=True)
    prompt = _text(_shorter_than(limits.max_prompt_characters), required=True)
    response = _text(_shorter_than(limits.max_response_characters), required=True)
    if file == "prompts":
        split = _text(_text_check("split_is_known", lambda split: split in SPLITS), required=False)
        return pa.DataFrameSchema(
            {"id": identity, "prompt": prompt, "split": split, "kind": optional},
            checks=[_check("row_is_new", _is_new)],
        )
    if file == "demonstrations":
        return pa.DataFrameSchema(
            {"id": identity, "prompt": prompt, "response": response, "source": label},
            checks=[_check("row_is_new", _is_new)],
        )
    return pa.DataFrameSchema(
        {
            "id": identity,
            "prompt": prompt,
            "chosen": response,
            "rejected": response,
            "source": label,
            "annotator": optional,
            "pair": optional,
        },
        checks=[
            _check("row_is_new", _is_new),
            _check("responses_differ", _responses_differ),
            _check("responses_look_different", _responses_differ_to_the_eye),
            _check("fits_its_pair", _fits_its_pair),
        ],
    )


def row_faults(frame: pd.DataFrame, schema: pa.DataFrameSchema) -> dict[int, list[Fault]]:
    """Every fault of every row, by position in the frame.

    Raises:
        MissingColumns: columns that the schema requires and no row has.
        SchemaErrors: a check itself failed; that is a fault of ours.
    """
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases: pd.DataFrame = errors.failure_cases
        missing = cases.loc[cases["check"] == "column_in_dataframe", "failure_case"]
        if len(missing):
            raise MissingColumns(sorted(missing)) from None
        if cases["index"].isna().any():
            raise
        found: dict[int, set[Fault]] = defaultdict(set)  # a set: pandera repeats a row's fault once per column
        for context, column, check, position in zip(
            cases["schema_context"], cases["column"], cases["check"], cases["index"], strict=True
        ):
            blamed = "" if context == "DataFrameSchema" else column
            name, _, limit = check.partition(":")
            kind, message = _FAULTS[name]
            found[int(position)].add(Fault(blamed, message.format(limit), kind))
        return {position: sorted(found[position]) for position in sorted(found)}
    return {}


def _check(name: str, holds: Callable[[Any], Any]) -> pa.Check:
    """A check by its name in `_FAULTS`; what follows a colon there goes into its message."""
    return pa.Check(holds, name=name, error=name)


def _text_check(name: str, holds: Callable[[str], bool]) -> pa.Check:
    """A check of one text at a time. What is no text passes: that is another check's fault to report."""
    return _check(
        name,
        lambda column: column.map(lambda value: not isinstance(value, str) or holds(value)).astype(bool),
    )


def _shorter_than(limit: int) -> pa.Check:
    return _text_check(f"is_short:{limit}", lambda text: len(text) <= limit)


def _text(*checks: pa.Check, required: bool, nullable: bool = False) -> pa.Column:
    return pa.Column(
        checks=[
            _check("is_text", lambda column: column.map(lambda value: isinstance(value, str)).astype(bool)),
            _text_check("is_not_empty", lambda text: bool(visible(text))),
            _text_check("is_well_encoded", lambda text: not has_encoding_fault(text)),
            *checks,
        ],
        required=required,
        nullable=nullable,
    )


def _is_new(frame: pd.DataFrame) -> pd.Series:
    """False for a row that looks like an earlier one in everything but the id.

    Where labels of one pair come without the annotator's name, equal rows are two annotators who agree.
    """
    ids: Sequence[object] = [None] * len(frame)
    if "pair" in frame:
        named = frame["annotator"].notna() if "annotator" in frame else pd.Series(False, index=frame.index)
        ids = frame["id"].map(_looks).where(frame["pair"].notna() & ~named, "").tolist()
    columns = [frame[column].tolist() for column in frame.columns if column != "id"]
    seen: set[bytes] = set()
    new = []
    for row in zip(ids, *columns, strict=True):
        before = len(seen)
        seen.add(blake2b("\0".join(map(_looks, row)).encode("utf-8", "surrogatepass"), digest_size=16).digest())
        new.append(len(seen) > before)
    return pd.Series(new, index=frame.index)


def _looks(value: object) -> str:
    """A value as a reader sees it: equal for those that look equal, and told from those of another type."""
    return repr(visible(value) if isinstance(value, str) else value)


def _responses_differ(frame: pd.DataFrame) -> pd.Series:
    return frame["chosen"] != frame["rejected"]


def _responses_differ_to_the_eye(frame: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [
            not isinstance(chosen, str)
            or not isinstance(rejected, str)
            or chosen == rejected
            or visible(chosen) != visible(rejected)
            for chosen, rejected in zip(frame["chosen"], frame["rejected"], strict=True)
        ],
        index=frame.index,
    )


def _fits_its_pair(frame: pd.DataFrame) -> pd.Series:
    """False for a row whose prompt and responses are not those that most rows of its `pair` have.

    Rows with a broken text take no part: that they differ from their pair is not their fault's name.
    """
    if "pair" not in frame:
        return pd.Series(True, index=frame.index)
    contents = [
        (visible(prompt), *sorted((visible(chosen), visible(rejected))))
        if all(map(_is_sound, (pair, prompt, chosen, rejected))) and visible(chosen) != visible(rejected)
        else None
        for pair, prompt, chosen, rejected in zip(
            frame["pair"], frame["prompt"], frame["chosen"], frame["rejected"], strict=True
        )
    ]
    counts: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for pair, content in zip(frame["pair"], contents, strict=True):
        if content is not None:
            counts[pair][content] += 1
    usual = {pair: count.most_common(1)[0][0] for pair, count in counts.items()}
    return pd.Series(
        [content is None or usual[pair] == content for pair, content in zip(frame["pair"], contents, strict=True)],
        index=frame.index,
    )


def _is_sound(text: object) -> bool:
    return isinstance(text, str) and bool(visible(text)) and not has_encoding_fault(text)
