"""The one family of errors. Each says what went wrong, where, what was expected, what was found, and what to do.

The stage entry (`components.launch`) and the command line turn any of them into one message and exit status 2; every
other exception is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

USER_ERROR_STATUS = 2


class ProximalError(Exception):
    """Base of every error a user can mend.

    Args:
        what: one sentence, what went wrong.
        where: the file, dotted key, row or rank.
        expected, found: what should have been there and what was.
        do: the next step for the user.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", found: str = "", do: str = "") -> None:
        super().__init__(what, where, expected, found, do)  # all of them, so that the error pickles
        self.what, self.where, self.expected, self.found, self.do = what, where, expected, found, do

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.expected, self.found, self.do)

    def __str__(self) -> str:
        details = {
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "what to do": self.do,
        }
        lines = [self.what] + [f"  {name + ':':<12}{text}" for name, text in details.items() if text]
        return "\n".join(lines)


def _rebuild(kind: type[ProximalError], what: str, where: str, expected: str, found: str, do: str) -> ProximalError:
    return kind(what, where=where, expected=expected, found=found, do=do)


class ConfigError(ProximalError):
    """params.yaml or a command-line value: unknown, missing, of a wrong type, or contradicting another."""


class DataError(ProximalError):
    """Raw or cleaned data: a missing file, a bad row, a failed check."""


class ArtifactError(ProximalError):
    """A stage output that is absent, half-written, corrupt, or made by other settings."""


class TrainingError(ProximalError):
    """The numbers went wrong: a loss, score or ratio that is not finite."""


class EnvironmentFault(ProximalError):
    """The machine: a full disk, a missing program, processes that did not start."""
