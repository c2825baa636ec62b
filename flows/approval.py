"""The question whether a candidate that passed the gate becomes champion: shown to people, and their answer taken.

A run of a deployment is suspended: its process ends, its clone is gone, and nothing waits but a record. Resumed with an
answer, it starts again, finds its question in the registry and does nothing else: no clone is made and no stage looked
at, so that it does not matter what was committed meanwhile. A run at a terminal ends; `proximal approve` answers it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import click
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import NotPausedError, ObjectNotFound
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from components.config.orchestration import Approval
from components.interface.terminal import Ending, way_to
from components.promotion.verdict import AWAITING, PROMOTED
from flows.server import API_VARIABLE
from flows.shown import figures_of

KEY = "approval"  # of the artifact, and of the pause
ASKED, APPROVED, REJECTED = "Awaiting approval", "Approved", "Rejected"  # names of final states


class Answer(RunInput):
    """What people fill in to resume a run that asks."""

    decision: Literal["approve", "reject"]
    reason: Annotated[str, Field(min_length=1)]
    by: Annotated[str, Field(min_length=1)]  # Prefect's server knows no names


def ask(settings: Approval, told: Ending, evaluation: dict[str, Any] | None) -> None:
    """Show people the comparison; a run of a deployment is suspended here until they answer.

    Args:
        told: with the verdict of the gate, which promotes if they approve.
    """
    verdict = told.verdict
    if verdict is None or verdict.decision != AWAITING:
        return
    lines = [
        verdict.sentence(),
        "",
        *figures_of(evaluation),
        f"- whom it would replace: {verdict.opponent}",
        f"- report, figures and curves: MLflow run `{told.run_id}`{way_to(told.run_id)}",
        f"- the answer: resume this run with decision, reason and by; or `proximal approve {verdict.version} --reason "
        f"...`, `proximal reject {verdict.version} --reason ...`; until {verdict.until}",
    ]
    create_markdown_artifact("\n".join(lines), key=KEY, description=verdict.sentence())
    if deployment.id:
        suspend_flow_run(Answer, timeout=round(settings.timeout_hours * 3600), key=KEY)  # this never returns


def answered(repository: Path) -> State[Any] | None:
    """The end of a run that was resumed: the answer to its question of before; None where it asked nothing.

    Raises:
        ArtifactError: another champion has come since.
        ConfigError: the time to answer is over.
    """
    if not deployment.id:
        return None
    from components.promotion.approval import answer, asked_by, verdict_on

    version = asked_by(str(flow_run.id))
    if version is None:
        return None
    verdict = verdict_on(version)
    # It may have been answered from a terminal, or another run may be asking now.
    if verdict.decision == AWAITING and version.tags.get("prefect_flow_run_id") == str(flow_run.id):
        given = suspend_flow_run(Answer, key=KEY)  # the run is resumed: gives what it was resumed with
        assert given is not None, "a run that was resumed has an answer"
        approved = given.decision == "approve"
        verdict = answer(version, approved=approved, by=given.by, reason=given.reason, root=repository)
    name = {PROMOTED: APPROVED, AWAITING: ASKED}.get(verdict.decision, REJECTED)
    return Completed(name=name, message=verdict.sentence(), data=verdict)


def resume(run: str, *, approved: bool, by: str, reason: str) -> None:
    """End the suspended run that asked, where a Prefect server is named; the answer stands in the registry already."""
    if not os.environ.get(API_VARIABLE):
        click.echo(f"flow run {run} may still be suspended: with {API_VARIABLE} this command ends it", err=True)
        return
    given = {"decision": "approve" if approved else "reject", "reason": reason, "by": by}
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run)).state
        except ObjectNotFound:  # of another server, or deleted
            return
    if state is not None and state.is_paused():
        try:
            resume_flow_run(UUID(run), run_input=given)
        except NotPausedError:  # somebody was faster
            return
