"""The gold score of the rubric as a part of a scorer: the true reward, where the data has one."""

from __future__ import annotations

from collections.abc import Sequence

from components.config import Data
from components.measuring.rubric import load_rubric
from components.scoring.answers import Source
from components.scoring.columns import Row


class RubricPart:
    """The rubric's gold."""

    def __init__(self, data: Data | None, key: str) -> None:
        """
        Raises:
            ConfigError: the rubric cannot be used.
        """
        rubric = load_rubric(data) if data is not None else None
        if rubric is None:
            raise ValueError(f"{key}: without data.rubric")  # components.config sees to it
        self.source = Source(key, rubric.name)
        self._rubric = rubric

    def require(self, there: Sequence[str], data: str) -> None:
        """See that the data has its columns. Raises: ConfigError."""
        self._rubric.require(there, data)

    def __call__(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """Gold of every response. Raises: ConfigError, the rubric gives anything else."""
        return [self._rubric.of(row, response)["gold"] for row, response in zip(rows, responses, strict=True)]
