"""`proximal sync`: what MLflow was not told while it was away."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from components.errors import USER_ERROR_STATUS
from flows import output
from flows.environment import set_environment
from flows.preconditions import require_repository

if TYPE_CHECKING:
    from components.tracking.sync import Delivered


@click.command(short_help="Deliver what MLflow was not told.")
@output.as_json
def sync(as_json: bool) -> None:
    """Deliver to MLflow what runs here have told while its server was away."""
    with output.answering(as_json) as tell:
        set_environment(require_repository())
        from components.tracking import reconcile_dead_runs, store
        from components.tracking.sync import REFUSED, deliver_left

        with store.impatient():
            found = deliver_left()
            if found:
                reconcile_dead_runs()  # a run that was killed before it could tell its end
        if as_json:
            tell([asdict(one) for one in found])
        else:
            click.echo("\n".join(_lines(found, store.name())))
        if any(one.outcome == REFUSED for one in found):
            sys.exit(USER_ERROR_STATUS)


def _lines(found: Sequence[Delivered], store: str) -> list[str]:
    from components.tracking.sync import AT_WORK, ELSEWHERE, REFUSED

    if not found:
        return [f"nothing to deliver: {store} has all that was told here"]
    said = {
        AT_WORK: "a process is at work on it, and delivers it",
        ELSEWHERE: "is of another tracking store: set MLFLOW_TRACKING_URI to {why}",
        REFUSED: "refused: {why}; to give it up, delete {folder}",
    }
    delivered = "{points} points and {files} files delivered to run {run}"
    return [f"{one.name}: {said.get(one.outcome, delivered).format(**asdict(one))}" for one in found]
