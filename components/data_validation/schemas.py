"""The pandera schemas of the raw files, and the per-row faults they find, all at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from components.config import DataValidation
from components.data_validation.conversations import ROLES, RULES, is_sound
from components.data_validation.faults import Fault, FaultKind
from components.data_validation.normalisation import has_encoding_fault, visible
from components.data_validation.reading import Row
from components.data_validation.whole_rows import (
    Count,
    are_new,
    fit_their_pair,
    prompts_are_short,
    responses_differ,
    responses_look_different,
)

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
    "are_turns": (FaultKind.SCHEMA, "are no turns, each with a role and a content"),
    "roles_are_known": (FaultKind.SCHEMA, f"have a role that is none of {', '.join(ROLES)}"),
    "roles_alternate": (FaultKind.SCHEMA, "do not alternate: a system prompt first if at all, then user and assistant"),
    "user_is_last": (FaultKind.SCHEMA, "do not end with the user's turn"),
    "no_turn_is_empty": (FaultKind.EMPTY_OR_OVERLONG, "have an empty turn"),
    "turns_are_well_encoded": (FaultKind.ENCODING, "have an encoding fault"),
    "prompt_has_few_tokens": (FaultKind.EMPTY_OR_OVERLONG, "prompt is too long (over {} tokens)"),
    "has_few_tokens": (FaultKind.EMPTY_OR_OVERLONG, "is too long (over {} tokens)"),
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


def schema_of(
    file: FileName, limits: DataValidation, count: Count | None = None, sound: dict[int, bool] | None = None
) -> pa.DataFrameSchema:
    """The schema of a raw file. Columns it does not name are allowed and kept as they are.

    Args:
        count: the lengths of texts in tokens; needed where there is a limit of them.
        sound: which conversations are, by identity, as far as is known; rows of several files may have the same ones.
    """
    label = _text(required=True)
    optional = _text(required=False, nullable=True)
    identity = _text(_check("id_is_new", lambda ids: ~ids.map(repr).duplicated()), required=True)
    prompt = _text(_shorter_than(limits.max_prompt_characters), required=True)
    few = [_few_tokens(limits.max_response_tokens, count)] if limits.max_response_tokens and count else []
    response = _text(_shorter_than(limits.max_response_characters), *few, required=True)
    columns: dict[FileName, dict[str, pa.Column]] = {
        "prompts": {
            "split": _text(_text_check("split_is_known", lambda split: split in SPLITS), required=False),
            "kind": optional,
        },
        "demonstrations": {"response": response, "source": label},
        "comparisons": {
            "chosen": response,
            "rejected": response,
            "source": label,
            "annotator": optional,
            "pair": optional,
        },
    }
    checks = [_check("row_is_new", are_new)]
    if (limit := limits.max_prompt_tokens) and count:
        few_tokens = partial(prompts_are_short, limit=limit, count=count)
        checks.append(_check(f"prompt_has_few_tokens:{limit}", few_tokens))
    if file == "comparisons":
        checks += [
            _check("responses_differ", responses_differ),
            _check("responses_look_different", responses_look_different),
            _check("fits_its_pair", fit_their_pair),
        ]
    always = {"id": identity, "prompt": prompt, "messages": _conversation({} if sound is None else sound)}
    return pa.DataFrameSchema(always | columns[file], checks=checks)


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


def _few_tokens(limit: int, count: Count) -> pa.Check:
    """Of a column of texts. What is no text passes, as above."""

    def holds(column: pd.Series) -> pd.Series:
        texts = [value if isinstance(value, str) else "" for value in column]
        return pd.Series([length <= limit for length in count(texts)], index=column.index)

    return _check(f"has_few_tokens:{limit}", holds)


def _conversation(sound: dict[int, bool]) -> pa.Column:
    """Messages, which only some rows have. Nearly all are sound, and then one look at each is enough."""

    def seems_sound(value: Any) -> bool:
        if id(value) not in sound:
            sound[id(value)] = _is_missing(value) or is_sound(value)
        return sound[id(value)]

    def column_holds(holds: Callable[[Any], bool]) -> Callable[[pd.Series], pd.Series]:
        return lambda column: column.map(lambda value: seems_sound(value) or holds(value)).astype(bool)

    checks = [_check(name, column_holds(holds)) for name, holds in RULES.items()]
    return pa.Column(checks=checks, required=False, nullable=True)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


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
