"""The commands by which people have the last word on who is champion."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import click

from flows import output
from flows.environment import set_environment
from flows.preconditions import require_repository

_REASON = click.option("--reason", required=True, help="Why; it is kept with the version.")
_BY = click.option("--by", default=getpass.getuser, show_default="your login", help="Who says so.")


@click.command(short_help="Move champion back to the one before.")
@click.option("--to", metavar="VERSION", help="A version that was champion before; or sft, for no champion.")
@_REASON
@_BY
@output.as_json
def rollback(to: str | None, reason: str, by: str, as_json: bool) -> None:
    """Move `champion` back to the version before; the policy that it leaves is blocked: no run crowns it again."""
    with output.answering(as_json) as tell:
        name = _model(require_repository())
        from components.promotion.champions import roll_back

        moved = roll_back(name, to, by, reason)
        if as_json:
            tell(_plain(name, moved))
        else:
            click.echo(moved.sentence(name))
            click.echo(f"{name} version {moved.before} is blocked: no run makes its policy champion again")


@click.command(short_help="Make any version the champion.")
@click.argument("version", type=int)
@_REASON
@_BY
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.as_json
def promote(version: int, reason: str, by: str, yes: bool, as_json: bool) -> None:
    """Make any version the champion, whatever the gate said of it; shows what it said, and asks. Lifts a block."""
    with output.answering(as_json) as tell:
        name = _model(require_repository())
        from components.promotion.champions import gate_figures, promote_by_hand
        from components.tracking.registry import find_version

        found = find_version(f"{name}@{version}")
        click.echo(f"{name} version {version}, as the gate found it:")
        for figure, value in gate_figures(found.tags):
            click.echo(f"  {figure:<16}{value}")
        if not yes:
            click.confirm("make it the champion?", abort=True)
        moved = promote_by_hand(name, found, by, reason)
        if as_json:
            tell(_plain(name, moved))
        else:
            click.echo(moved.sentence(name))


def _answer(version: int | None, reason: str, by: str, as_json: bool, *, approved: bool) -> None:
    with output.answering(as_json) as tell:
        repository = require_repository()
        name = _model(repository)
        from components.promotion.approval import answer
        from components.tracking.registry import find_version

        found = find_version(f"{name}@{'candidate' if version is None else version}")
        verdict = answer(found, approved=approved, by=by, reason=reason, root=repository)
        if flow_run := found.tags.get("prefect_flow_run_id"):
            from flows.approval import resume

            resume(flow_run, approved=approved, by=by, reason=reason)
        if as_json:
            tell({"model": name, "version": verdict.version, "decision": verdict.decision})
        else:
            click.echo(verdict.sentence())


@click.command(short_help="Approve a candidate that passed the gate.")
@click.argument("version", type=int, required=False)
@_REASON
@_BY
@output.as_json
def approve(version: int | None, reason: str, by: str, as_json: bool) -> None:
    """Make a candidate that passed the gate, and awaits approval, the champion; the last candidate without VERSION."""
    _answer(version, reason, by, as_json, approved=True)


@click.command(short_help="Reject a candidate that passed the gate.")
@click.argument("version", type=int, required=False)
@_REASON
@_BY
@output.as_json
def reject(version: int | None, reason: str, by: str, as_json: bool) -> None:
    """Leave a candidate that passed the gate, and awaits approval, a candidate; the last one without VERSION."""
    _answer(version, reason, by, as_json, approved=False)


def _model(repository: Path) -> str:
    """The registered model that the params name."""
    set_environment(repository)
    from components.config import load_params
    from components.place import Place

    return load_params(Place(repository).params).promotion.registered_model


def _plain(name: str, moved: Any) -> dict[str, Any]:
    return {"model": name, "before": moved.before, "champion": moved.now.number if moved.now else None}


CHAMPIONS = (approve, reject, rollback, promote)
