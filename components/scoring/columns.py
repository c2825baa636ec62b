"""The columns of rows, and which of them a function asks for. No torch is needed to look."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from components.data.rows import Comparison, Demonstration, Prompt
from components.errors import ConfigError, DataError

Row = Prompt | Demonstration | Comparison
_TAKEN = ("prompts", "responses")  # names of the arguments before them
_ALWAYS = ("id", "messages")  # None where a prompt is one text


class Asked(NamedTuple):
    """The columns that a function takes by name.

    Args:
        required: those without a default; `optional`: those with one.
        takes_all: whether it has a `**`, and takes whatever there is.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    takes_all: bool

    def of(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the columns that the function is given."""
        names = (*self.required, *self.optional)
        return {name: value for name, value in columns.items() if self.takes_all or name in names}


def asked_columns(function: Callable[..., Any], positional: Sequence[str], options: Collection[str] = ()) -> Asked:
    """What a function asks for beyond its first arguments and the options that it is given anyway.

    Raises:
        TypeError: it does not take those, or a further argument without a default that has no name.
    """
    signature = inspect.signature(function)
    signature.bind_partial(*positional, **dict.fromkeys(options))
    required: list[str] = []
    optional: list[str] = []
    takes_all, taken = False, 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            taken = len(positional)
        elif parameter.kind is parameter.VAR_KEYWORD:
            takes_all = True
        elif parameter.kind is not parameter.KEYWORD_ONLY and taken < len(positional):
            taken += 1
        elif parameter.name not in options:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise TypeError(f"argument {parameter.name!r} cannot be given by name")
            (required if parameter.default is parameter.empty else optional).append(parameter.name)
    return Asked(tuple(required), tuple(optional), takes_all)


def columns_of_rows(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """All columns of rows beyond their texts, a value a row: None where a row has no such column.

    Raises:
        DataError: a column has a name that functions use for something else.
    """
    names = column_names(rows)
    return {name: [row.extra[name] if name in row.extra else getattr(row, name, None) for row in rows]
            for name in names}  # fmt: skip


def column_names(rows: Iterable[Row]) -> list[str]:
    """Their names, in order of appearance.

    Raises:
        DataError: a column has a name that functions use for something else.
    """
    names = dict.fromkeys(_ALWAYS)
    for row in rows:
        names.update(dict.fromkeys(row.extra))
        if getattr(row, "kind", None) is not None:
            names["kind"] = None
    if found := [name for name in names if name in _TAKEN]:
        raise DataError(
            "a column has a name that reward functions use for something else",
            where=f"column {', '.join(found)}",
            expected=f"other names than {' and '.join(_TAKEN)}",
            do="rename the column in the data",
        )
    return list(names)


def require_columns(asked: Asked, there: Collection[str], where: str, data: str) -> None:
    """See that the data has what a function asks for.

    Args:
        where: the function, by its key; `data`: the rows in words.

    Raises:
        ConfigError: a column is not there.
    """
    if missing := [name for name in asked.required if name not in there]:
        raise ConfigError(
            f"a function asks for a column that the data does not have: {', '.join(missing)}",
            where=where,
            expected=f"columns of {data}: {', '.join(sorted(there))}",
            found=", ".join(missing),
            do="bring the column with the prompts' rows, or give the function's argument a default",
        )
