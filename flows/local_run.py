"""A flow run on this machine, for a person at a terminal: started quickly, told in plain words, ended in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import ProximalError
from flows.environment import set_environment
from flows.left_open import end_dead_runs
from flows.server import API_VARIABLE, away, start_local_server

if TYPE_CHECKING:
    from rich.console import Console

_ENGINE = (
    "Beginning flow run",
    "Beginning subflow run",
    "View at",
    "Finished in state",
    "Task run failed with state",
    "Crash detected! Execution was aborted by an interrupt signal",  # the command says what that means
)


def start(repository: Path) -> None:
    """Get going, at the same time, what a run needs: Prefect's server, imports, MLflow's database."""
    set_environment(repository)
    home = Path(os.environ["PREFECT_HOME"])
    is_first = API_VARIABLE not in os.environ and not (home / "prefect.db").exists()
    what = "making the databases of Prefect and MLflow, once" if is_first else "starting Prefect, DVC and MLflow"
    killed: list[str] = []
    with _interruptible("interrupted before anything had begun"), _busy(f"{what} ..."):
        server = start_local_server(home)
        import dvc.repo  # noqa: F401  the flow reads the graph with it

        import flows.rlhf  # noqa: F401
        from components.tracking import reconcile_dead_runs

        _quiet_engine()
        reconcile_dead_runs()
        server.wait()
        if server.is_ours:
            killed = end_dead_runs(home)
    for name in killed:
        _say(f"a run before this one was killed: {name}; what it finished is kept, and this one goes on from there")


def run_flow(flow: Any, **parameters: Any) -> Any:
    """Run a flow to its end and return what it came to.

    Raises:
        ProximalError: it was refused.
        SystemExit: it failed, or was interrupted; what there is to say has been said.
    """
    import httpx

    from flows.outcome import PipelineFailure, unheard

    kept = (
        "interrupted: finished stages are kept, and a cycle goes on after its last iteration; "
        "the same command goes on from there"
    )
    with _interruptible(kept), _at_the_desk():
        try:
            state = flow(**parameters, return_state=True)
        except httpx.HTTPError as fault:
            _say(f"warning: Prefect's server does not answer ({fault}), and shows this run as not ended")
            if (state := unheard()) is None:
                raise away(fault) from fault
    result = state.result(raise_on_failure=False)
    if not isinstance(result, Exception):
        return result
    if isinstance(result, ProximalError):
        raise result
    click.echo(f"error: {result}", err=True)
    sys.exit(result.status if isinstance(result, PipelineFailure) else 1)


@contextmanager
def _interruptible(message: str) -> Iterator[None]:
    """Ctrl-C is no fault: say what it means, and end."""
    try:
        yield
    except KeyboardInterrupt:
        _say(message)
        sys.exit(128 + signal.SIGINT)


def _terminal() -> Console | None:
    """The terminal of a person who looks on; None where lines go to a file, a pipe, or a terminal that cannot move."""
    from rich.console import Console

    console = Console(stderr=True)
    return console if sys.stderr.isatty() and not console.is_dumb_terminal else None


def _say(message: str) -> None:
    """One line, which breaks between words where a terminal is narrower."""
    if (console := _terminal()) is None:
        click.echo(message, err=True)
    else:
        console.print(message, highlight=False, markup=False)


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """Show that something goes on which takes a while."""
    console = _terminal()
    if console is None:
        _say(what)
        yield
        return
    with console.status(what, spinner="line"):
        yield


@contextmanager
def _at_the_desk() -> Iterator[None]:
    """Show how far the run has come, where somebody looks on."""
    console = _terminal()
    if console is None:
        yield
        return
    from flows.desk import Desk, quiet_handlers
    from flows.progress import shown_by

    with Desk(console) as desk, quiet_handlers(console), shown_by(desk):
        yield


def _quiet_engine() -> None:
    """Leave out of the terminal what Prefect's engine and DVC's bars say; Prefect's own records keep it all."""
    import httpx

    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # by it DVC decides whether bars are drawn
    logging.getLogger("dvc.rwlock").setLevel(logging.ERROR)  # that it cleared the locks of a run that was stopped

    def is_news(record: logging.LogRecord) -> bool:
        is_lost_server = bool(record.exc_info) and isinstance(record.exc_info[1], httpx.HTTPError)  # type: ignore[index]
        return not is_lost_server and not record.getMessage().startswith(_ENGINE)

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)
