"""Which format the rows of a file have, by their columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

from components.data.formats.argilla import ARGILLA
from components.data.formats.base import Format, Row
from components.data.formats.conversational import CONVERSATIONAL
from components.data.formats.conversations import TURNS, is_hh, is_turns
from components.data.formats.demonstrations import ALPACA, DEMONSTRATIONS, DIALOGUES, ends_with_the_assistant
from components.data.formats.implied import HH, IMPLIED
from components.data.formats.label_studio import LABEL_STUDIO
from components.data.formats.labels import LABELS
from components.data.formats.preferences import PREFERENCES
from components.data.formats.prompts import ASKED_DIALOGUES, PROMPTS
from components.data.formats.ranked import ANSWERS, RANKED
from components.data.formats.ranked_records import RANKED_RECORDS
from components.data.formats.unpaired import UNPAIRED
from components.errors import DataError

FORMATS = (
    PREFERENCES,
    CONVERSATIONAL,
    HH,
    IMPLIED,
    LABELS,
    LABEL_STUDIO,
    ARGILLA,
    RANKED,
    RANKED_RECORDS,
    UNPAIRED,
    DEMONSTRATIONS,
    DIALOGUES,
    ALPACA,
    PROMPTS,
)
OWN: dict[str, Format] = {"prompts": PROMPTS, "demonstrations": DEMONSTRATIONS, "comparisons": PREFERENCES}
_NEEDED: dict[str, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "response"),
    "comparisons": ("prompt", "chosen", "rejected"),
}


def format_of(rows: Sequence[Row], numbers: Sequence[int], path: str, stem: str) -> Format:
    """The one format of a file's rows. A row that lacks a column is of no format of its own: its fault is told later.

    Args:
        numbers: where each row is in the file.
        stem: of the file's name: prompts, demonstrations and comparisons say what they hold.

    Raises:
        DataError: no format fits any row, or the rows have several.
    """
    columns = frozenset().union(*{frozenset(row) for row in rows})
    if (named := _named(stem, columns, rows)) is not None:
        return named
    found: dict[str, tuple[Format, int]] = {}
    known: dict[tuple[object, ...], Format | None] = {}
    telling = [not _lacks_answers(row) for row in rows]
    if not any(telling):
        telling = [True] * len(rows)
    for row, number in compress(zip(rows, numbers, strict=True), telling):
        # What `fits` looks at: which columns have which type of value, how a dialogue begins, which type answers have.
        key = (*row, *map(type, row.values()), is_hh(row.get("chosen")), *_types_of_answers(row))
        if key not in known:
            known[key] = next((each for each in FORMATS if each.fits(row, columns)), None)
        if (fitting := known[key]) is not None and fitting.name not in found:
            found[fitting.name] = (fitting, number)
    if DIALOGUES.name in found and not any(map(_demonstrates, rows)):
        _, number = found.pop(DIALOGUES.name)
        found.setdefault(PROMPTS.name, (ASKED_DIALOGUES, number))  # where both are, those of one turn have no messages
    if len(found) > 1:
        raise DataError(
            "a raw file mixes formats",
            where=path,
            expected="one format a file",
            found="; ".join(f"{name}, first in row {number}" for name, (_, number) in found.items()),
            do="put the rows of each format into a file of their own",
        )
    detected = next((each for each, _ in found.values()), None)
    if stem in OWN and (detected is None or detected.role != stem):
        raise _lacks_columns(path, stem, columns)
    if detected is None:
        raise DataError(
            "the columns of a raw file fit no format",
            where=path,
            expected="; ".join(
                f"{role}: " + ", or ".join(f"[{each.needs}]" for each in FORMATS if each.role == role) for role in OWN
            ),
            found=f"columns {', '.join(sorted(map(str, columns)))}",
            do="say in data.columns of params.yaml (`--column OURS=THEIRS` of `proximal data import`) which column is "
            "which, or take the file out of the folder",
        )
    return detected


def _lacks_columns(path: str, stem: str, columns: frozenset[str]) -> DataError:
    missing = [name for name in _NEEDED[stem] if name not in columns]
    return DataError(
        "a raw file lacks what its name says",
        where="; ".join(f"{path}, column {name}" for name in missing) or path,
        expected=f"columns {', '.join(_NEEDED[stem])}, or another format of {stem}",
        found=f"columns {', '.join(sorted(map(str, columns)))}",
        do="mend what writes it, say in data.columns of params.yaml which column is which, or name the file otherwise",
    )


def _named(stem: str, columns: frozenset[str], rows: Sequence[Row]) -> Format | None:
    """Our own format, where a file is named for it and has its columns."""
    if stem not in OWN or not columns.issuperset(_NEEDED[stem]):
        return None
    if stem != "prompts" and columns.intersection(TURNS):
        return None
    if any(is_turns(row.get(column)) for row in rows for column in ("chosen", "response")):
        return None
    return OWN[stem]


def _lacks_answers(row: Row) -> bool:
    """An empty list tells nothing of the format: the other rows do."""
    return any(row.get(name) == [] for name in ANSWERS)


def _types_of_answers(row: Row) -> Iterator[object]:
    for name in ANSWERS:
        value = row.get(name)
        if isinstance(value, list) and value:
            yield frozenset(value[0]) if isinstance(value[0], dict) else type(value[0])


def _demonstrates(row: Row) -> bool:
    return any(row.get(column) is not None for column in TURNS) and ends_with_the_assistant(row)
