"""The pages of MLflow and of Prefect, served on this machine alone until interrupted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from flows.environment import tracking_uri
from flows.server import API_VARIABLE, WITHOUT_SERVICES

HOST = "127.0.0.1"
# Few look: one process, none for jobs that nothing here asks for, and no word of what it is made of.
MLFLOW_QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}


def serve_mlflow(repository: Path, port: int) -> None:
    """Become MLflow's server, over this project's records; where these are on a server, say where."""
    from components.tracking import runs_url

    store, page = tracking_uri(repository), runs_url(port)
    if store.startswith("http"):
        click.echo(f"MLflow: {page}")
        return
    click.echo(f"MLflow: {page} (Ctrl-C ends it)", err=True)
    for name, value in MLFLOW_QUIET.items():
        os.environ.setdefault(name, value)
    _become(*mlflow_command(store, port))


def mlflow_command(store: str, port: int) -> tuple[str, ...]:
    """The module, with its arguments, that is MLflow's server over a store on this machine."""
    stores = ("--backend-store-uri", store, "--registry-store-uri", store)
    server = ("--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning")
    return ("mlflow", "server", *stores, *server)


def serve_prefect(port: int) -> None:
    """Become Prefect's server over the flow runs that this project keeps; where the user names a server, say where.

    It only shows: what serves deployments and schedules is off, as in the servers that runs start for themselves.
    """
    if named := os.environ.get(API_VARIABLE):
        click.echo(f"Prefect: {named.removesuffix('/api')} ({API_VARIABLE} names that server)")
        return
    os.environ[API_VARIABLE] = f"http://{HOST}:{port}/api"  # for the pages, too, which ask it
    os.environ.update(WITHOUT_SERVICES)
    click.echo(f"Prefect: http://{HOST}:{port} (Ctrl-C ends it)", err=True)
    _become("prefect", "server", "start", "--host", HOST, "--port", str(port))


def _become(*module_and_arguments: str) -> NoReturn:
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", *module_and_arguments])
