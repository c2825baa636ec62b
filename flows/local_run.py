"""A flow run on this machine, for a person at a terminal: started quickly, told in plain words, ended in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from components.errors import ProximalError
from flows.environment import set_environment
from flows.server import start_local_server

_ENGINE = (
    "Beginning flow run",
    "View at",
    "Finished in state",
    "Task run failed with state",
    "Crash detected! Execution was aborted by an interrupt signal",  # the command says what that means
)


def start(repository: Path) -> None:
    """Get going, at the same time, what a run needs: Prefect's server, imports, MLflow's database."""
    set_environment(repository)
    click.echo("starting Prefect, DVC and MLflow ...", err=True)
    server = start_local_server(Path(os.environ["PREFECT_HOME"]))
    import dvc.repo  # noqa: F401  the flow reads the graph with it

    import flows.rlhf  # noqa: F401
    from components.tracking import reconcile_dead_runs

    _quiet_engine()
    reconcile_dead_runs()
    server.wait()


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Run a flow to its end and return what it came to.

    Raises:
        ProximalError: it was refused.
        SystemExit: it failed, or was interrupted; what there is to say has been said.
    """
    from flows.outcome import PipelineFailure

    try:
        state = flow(**parameters, return_state=True)
    except KeyboardInterrupt:
        click.echo(
            "interrupted: finished stages are kept, and a cycle goes on after its last iteration; "
            "the same command goes on from there",
            err=True,
        )
        sys.exit(128 + signal.SIGINT)
    result = state.result(raise_on_failure=False)
    if not isinstance(result, Exception):
        return result
    if isinstance(result, ProximalError):
        raise result
    click.echo(f"error: {result}", err=True)
    sys.exit(result.status if isinstance(result, PipelineFailure) else 1)


def _quiet_engine() -> None:
    """Leave out of the terminal what Prefect's engine says of itself; its own records keep it all."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_ENGINE)

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)
