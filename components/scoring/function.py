"""A reward function: module:function(prompts, responses, **columns) -> a number or None each.

`prompts` and `responses` are lists of texts; columns are lists beside them: `id`, `messages` (None where a prompt is
one text), `kind` where the data has it, and whatever else the rows bring. A function is given those that it takes by
name, or all of them if it has a `**`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from components.config.scoring import Function
from components.errors import ConfigError
from components.scoring.answers import Source, batches, places, require_numbers
from components.scoring.columns import Asked, Row, asked_columns, columns_of_rows, require_columns
from components.scoring.worker import Fault, Worker


def asked_of(part: Function, key: str) -> Asked:
    """The columns that a function asks for.

    Args:
        key: of the part in params.

    Raises:
        ConfigError: it cannot be imported, or not called with prompts and responses.
    """
    module_name, _, name = part.function.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as fault:  # a module of the user's may raise anything
        raise _unusable(part, key, f"a module {module_name} that can be imported", _named(fault)) from fault
    function = getattr(module, name, None)
    if not callable(function):
        found = "no such name" if function is None else f"a {type(function).__name__}"
        raise _unusable(part, key, f"a function {name} in {module_name}", found)
    return _asked(part, key, function)


def _asked(part: Function, key: str, function: Callable[..., Any]) -> Asked:
    try:
        return asked_columns(function, ("prompts", "responses"))
    except (TypeError, ValueError) as fault:  # it takes other arguments, or does not tell which
        raise _unusable(part, key, "a function of prompts, responses and columns by name", str(fault)) from fault


class FunctionPart:
    """A function as a part of a scorer."""

    def __init__(self, part: Function, key: str) -> None:
        """
        Raises:
            ConfigError: the function cannot be used.
        """
        self.source = Source(key, part.function)
        self._part = part
        self._asked = asked_of(part, key)

    @cached_property
    def _worker(self) -> Worker:
        return Worker(self._part.function)

    def require(self, there: Sequence[str], data: str) -> None:
        """See that the data has its columns. Raises: ConfigError."""
        require_columns(self._asked, there, self.source.where, data)

    def __call__(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """A number or None for every response.

        Raises:
            ConfigError: it raises, hangs, or gives anything else.
        """
        answers: list[float | None] = []
        numbered = list(zip(rows, responses, strict=True))
        there = columns_of_rows(rows)
        self.require(list(there), "the rows that are scored")
        for start, batch in enumerate(batches(numbered, self._part.batch_size)):
            own = [row for row, _ in batch]
            first = start * self._part.batch_size
            columns = {name: values[first : first + len(own)] for name, values in self._asked.of(there).items()}
            answers += self._answers(own, [response for _, response in batch], columns)
        return answers

    def _answers(self, rows: list[Row], responses: list[str], columns: dict[str, list[Any]]) -> list[float | None]:
        try:
            answer = self._worker.call([row.prompt for row in rows], responses, columns, self._part.timeout_seconds)
        except Fault as fault:
            raise ConfigError(
                "a reward function failed",
                where=f"{self.source.where}, {places(rows)} of {len(rows)}",
                expected=f"a list of {len(rows)} numbers or None, within {self._part.timeout_seconds:g} seconds "
                f"({self.source.key}.timeout_seconds)",
                found=str(fault),
                do="mend the function, and run again: what was finished before is kept",
            ) from None
        return require_numbers(answer, rows, self.source)


def _named(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"


def _unusable(part: Function, key: str, expected: str, found: str) -> ConfigError:
    return ConfigError(
        "a reward function cannot be used",
        where=f"{key}.function: {part.function}",
        expected=expected,
        found=found,
        do="name a function as module:function, importable from the repository's root",
    )
