"""The rubric: what a response is truly worth, given by a function that the params name.

`data.rubric` is `module:function`. The function takes a prompt, a response and `data.rubric_options` by keyword, and
returns numbers by name: `gold`, the overall score, and whatever parts it has. It is better where any of them is higher.
A further argument that it takes by keyword alone, without a default and in no option, is a column of the prompt's row.
A module may say in PARTS what each part means, as {name: sentence}; the report shows it.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from components.config import Data
from components.errors import ConfigError
from components.measuring.metrics import GOLD, MEASURED, SCORERS
from components.scoring.columns import Asked, Row, columns_of_rows, require_columns


@dataclass(frozen=True)
class Rubric:
    """A rubric as it is called: `rubric(prompt, response)`; `meanings` of its parts, for people.

    Args:
        columns: the names of those that it takes of a prompt's row.
    """

    name: str
    function: Callable[..., Mapping[str, float]]
    options: Mapping[str, Any]
    meanings: Mapping[str, str]
    columns: tuple[str, ...] = ()

    @property
    def asked(self) -> Asked:
        """The columns that it takes."""
        return Asked(self.columns, (), takes_all=False)

    def require(self, there: Collection[str], data: str) -> None:
        """See that the data, as named, has its columns. Raises: ConfigError."""
        require_columns(self.asked, there, f"data.rubric: {self.name}", data)

    def of(self, row: Row, response: str) -> dict[str, float]:
        """`rubric(prompt, response)` with the row's columns. Raises: ConfigError, also where it has no such column."""
        if not self.columns:
            return self(row.prompt, response)
        there = {name: values[0] for name, values in columns_of_rows([row]).items()}
        self.require(there, f"row {row.id}")
        return self(row.prompt, response, **{name: there[name] for name in self.columns})

    def __call__(self, prompt: str, response: str, **columns: Any) -> dict[str, float]:
        """Gold and its parts, in the rubric's own order.

        Raises:
            ConfigError: what the function returns is not numbers by name, has no gold, or a name that is taken.
        """
        scores = self.function(prompt, response, **self.options, **columns)
        if not isinstance(scores, Mapping) or GOLD.name not in scores or not all(map(_is_number, scores.values())):
            raise self._refusal("numbers by name, gold among them", repr(scores)[:200])
        if taken := sorted(name for name in scores if name in MEASURED or name.startswith(SCORERS)):
            raise self._refusal(f"names other than those that are measured anyway, {', '.join(sorted(MEASURED))}",
                                ", ".join(taken))  # fmt: skip
        return dict(scores)

    def _refusal(self, expected: str, found: str) -> ConfigError:
        return ConfigError(
            "the rubric returns what no report can show",
            where=f"data.rubric: {self.name}",
            expected=expected,
            found=found,
            do="change what the function returns",
        )


def load_rubric(data: Data) -> Rubric | None:
    """The rubric that the params name; None for data that comes without one.

    Raises:
        ConfigError: it cannot be imported, or not called with a prompt, a response and the options.
    """
    if data.rubric is None:
        return None
    module_name, _, function_name = data.rubric.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as fault:
        raise _unusable(data, f"a module {module_name} that can be imported", str(fault)) from fault
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "no such name" if function is None else f"a {type(function).__name__}"
        raise _unusable(data, f"a function {function_name} in {module_name}", found)
    signature = inspect.signature(function)
    columns = tuple(
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        and name not in data.rubric_options
    )  # fmt: skip
    try:
        signature.bind("prompt", "response", **data.rubric_options, **dict.fromkeys(columns))
    except TypeError as fault:
        expected = "a function of a prompt, a response and, by keyword, data.rubric_options"
        raise _unusable(data, expected, f"{function_name}{signature}: {fault}") from fault
    return Rubric(data.rubric, function, data.rubric_options, getattr(module, "PARTS", {}), columns)


def _unusable(data: Data, expected: str, found: str) -> ConfigError:
    return ConfigError(
        "the rubric cannot be used",
        where=f"data.rubric: {data.rubric}, data.rubric_options: {data.rubric_options}",
        expected=expected,
        found=found,
        do="name a function as module:function, importable from the repository's root; or set data.rubric: null, and "
        "the judge stands in for gold",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
