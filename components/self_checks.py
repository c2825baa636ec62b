"""What a run checks of itself: a figure held against a bound, told of where it is found, and stopped by.

Most failures of such runs are silent: a wrong reference, dropout left on, an engine with old weights give curves that
look like any other. A check is made where it costs next to nothing, and a run in which one fails goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from components.errors import TrainingError

logger = logging.getLogger("proximal")
FILE = "checks.json"  # what a cycle has checked, in its folder

Tell = Callable[[str, float, int], None]  # (name, what was found, step) -> into MLflow, say


class Check(NamedTuple):
    """What is looked at, and what may be found.

    Args:
        name: in checks.json and, below check/, in MLflow.
        what: the figure in words, e.g. "largest gap to the reference's logprobs".
        bound: the most that may be found.
        unit: of both.
    """

    name: str
    what: str
    bound: float
    unit: str


class Checks:
    """The checks of one cycle, each with the largest figure that was found and how often it was looked for.

    Args:
        tell: is told of every figure, before it may stop the run.
        speaks: whether the first figure of each check is logged for people; one process of several does that.
    """

    def __init__(self, tell: Tell | None = None, *, speaks: bool = True) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._tell = tell
        self._speaks = speaks

    def hold(
        self,
        check: Check,
        found: float,
        *,
        where: str,
        fault: str,
        do: str,
        step: int = 0,
        detail: str = "",
        is_kept: bool = True,
    ) -> None:
        """Note a figure, and stop the run where it is above its bound.

        Args:
            fault: what is wrong where it is, in a sentence.
            detail: what else was found then, e.g. which weights.
            step: in MLflow.
            is_kept: whether the figure belongs to what the cycle leaves; not so where it tells of this process alone.
        Raises:
            TrainingError: it is, or is no number.
        """
        if self._tell is not None:
            self._tell(check.name, found, step)
        if not found <= check.bound:
            raise TrainingError(
                fault,
                where=where,
                expected=f"{check.what}: at most {check.bound:g} {check.unit}",
                found=f"{found:.3g} {check.unit}{f', {detail}' if detail else ''}",
                do=do,
            )
        row = self._rows.get(check.name)
        if row is None and self._speaks:
            logger.info("%s: %s %.2g %s (at most %g)", where, check.what, found, check.unit, check.bound)
        if is_kept:
            before = row or {**check._asdict(), "largest": found, "times": 0}
            largest = max(found, before["largest"])
            self._rows[check.name] = {**before, "largest": largest, "times": before["times"] + 1}

    def rows(self) -> list[dict[str, Any]]:
        """Of each check its name, words, bound, unit, largest figure and number of figures; the first made first."""
        return list(self._rows.values())

    def go_on(self, rows: Iterable[dict[str, Any]], step: int) -> None:
        """Take up what the cycle had checked until it was interrupted, after so many steps."""
        self._rows = {row["name"]: row for row in rows}
        if self._tell is not None:
            for row in self._rows.values():
                self._tell(row["name"], row["largest"], step)
