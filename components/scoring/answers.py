"""What a part of a scorer gave, held against what it should give: a number or None for every response."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeVar

from components.errors import ConfigError
from components.scoring.columns import Row

_SHOWN = 160  # characters of what was found
Item = TypeVar("Item")


class Source(NamedTuple):
    """A part as errors name it: `key` in params, and what it asks: a function or an address."""

    key: str
    what: str

    @property
    def where(self) -> str:
        return f"{self.key}: {self.what}"


def plain(result: Any) -> Any:
    """What a function gave as plain values, so that it can leave its process: numbers, None, or in words what it is."""
    result = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(result, (list, tuple)):
        return f"{type(result).__name__} {shown(result)}"
    return [_plain(value) for value in result]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return None
    return float(value) if isinstance(value, Real) else f"{type(value).__name__} {shown(value)}"


def shown(value: Any) -> str:
    """A value in a line."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def require_numbers(answer: Any, rows: Sequence[Row], source: Source) -> list[float | None]:
    """The answer to a batch, if it is a finite number or None for each of its rows.

    Raises:
        ConfigError: it is not; the row is named.
    """
    if not isinstance(answer, list):
        raise _refusal("no list of numbers", source, rows[0], f"a list of {len(rows)} numbers or None", shown(answer))
    if len(answer) != len(rows):
        what, found = "the wrong number of values", f"{len(answer)} values"
        raise _refusal(what, source, rows[0], f"{len(rows)} values, one a response", found)
    for row, value in zip(rows, answer, strict=True):
        if value is not None and (isinstance(value, str) or not math.isfinite(value)):
            raise _refusal("a value that is no finite number", source, row, "a finite number or None", shown(value))
    return answer


def require_one(answers: Sequence[float | None], source: Source) -> None:
    """See that a part applies somewhere. Raises: ConfigError, all answers are None."""
    if answers and all(answer is None for answer in answers):
        raise ConfigError(
            "a part of the scorer applies to no response at all",
            where=source.where,
            expected="a number for some of the responses",
            found=f"None for all {len(answers)}",
            do="look at what it asks for in a row, such as the name of a column; or take the part away",
        )


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """One after the other, at most `size` each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def places(rows: Iterable[Row]) -> str:
    """The first row of a batch, as errors name it."""
    first = next(iter(rows))
    return f"first row {first.id}"


def _refusal(what: str, source: Source, row: Row, expected: str, found: str) -> ConfigError:
    return ConfigError(
        f"a part of the scorer gave {what}",
        where=f"{source.where}, row {row.id}",
        expected=expected,
        found=found,
        do="change what it returns",
    )
