"""Suites of several kinds, measured: what a decision holds candidate and opponent against each other on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from components.config import Shared
from components.config.measuring import Suite
from components.promotion import checked_suite, lm_eval_suite


def require_suites(suites: Mapping[str, Suite], root: Path) -> None:
    """Refuse suites that cannot be measured.

    Raises:
        ConfigError: a checker cannot be used, a task cannot be read, or lm-eval is not installed.
        DataError: the prompts are absent, no rows, too few, or two of them have one id.
    """
    for name, suite in suites.items():
        if suite.source == "checker":
            checked_suite.require(name, suite, root)
        else:
            lm_eval_suite.require(name, suite, root)


def files_of_suites(suites: Mapping[str, Suite], root: Path) -> tuple[Path, ...]:
    """What a decision rests on: prompts, checkers, tasks and their data, each file once."""
    files: list[Path] = []
    for suite in suites.values():
        if suite.source == "checker":
            files += checked_suite.files_of(suite, root)
        else:
            files += lm_eval_suite.files_of(suite, root)
    return tuple(dict.fromkeys(files))


def measure_suites(
    policy: Path, suites: Mapping[str, Suite], shared: Shared, root: Path
) -> dict[str, dict[str, float]]:
    """Suite -> prompt id -> what the policy is worth there.

    Args:
        policy: the folder of a stored policy.

    Raises:
        ArtifactError: the policy is absent or corrupt.
        ConfigError: a checker or a task fails, or gives no number for a prompt.
    """

    @cache
    def loaded() -> checked_suite.Policy:
        return checked_suite.Policy(policy, shared)

    found: dict[str, dict[str, float]] = {}
    for name, suite in suites.items():
        if suite.source == "checker":
            found[name] = loaded().measured(name, suite, root)
        else:
            found[name] = lm_eval_suite.measured(name, suite, policy, shared, root)
    return found
