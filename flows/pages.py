"""The pages of MLflow and of Prefect, served on this machine alone until interrupted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from flows.environment import tracking_uri
from flows.server import API_VARIABLE, WITHOUT_SERVICES

_HOST = "127.0.0.1"


def serve_mlflow(repository: Path, port: int) -> NoReturn:
    """Become MLflow's server, over this project's records."""
    click.echo(f"MLflow: http://{_HOST}:{port} (Ctrl-C ends it)", err=True)
    _become("mlflow", "ui", "--backend-store-uri", tracking_uri(repository), "--host", _HOST, "--port", str(port))


def serve_prefect(port: int) -> None:
    """Become Prefect's server over the flow runs that this project keeps; where the user names a server, say where.

    It only shows: what serves deployments and schedules is off, as in the servers that runs start for themselves.
    """
    if named := os.environ.get(API_VARIABLE):
        click.echo(f"Prefect: {named.removesuffix('/api')} ({API_VARIABLE} names that server)")
        return
    os.environ[API_VARIABLE] = f"http://{_HOST}:{port}/api"  # for the pages, too, which ask it
    os.environ.update(WITHOUT_SERVICES)
    click.echo(f"Prefect: http://{_HOST}:{port} (Ctrl-C ends it)", err=True)
    _become("prefect", "server", "start", "--host", _HOST, "--port", str(port))


def _become(*module_and_arguments: str) -> NoReturn:
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", *module_and_arguments])
