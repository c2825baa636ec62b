"""The commands that make a service of the project: on a Prefect server that runs, or with servers of their own."""

from __future__ import annotations

import click

from flows import output
from flows.preconditions import require_repository


@click.command(short_help="Register everything on a Prefect server.")
@output.as_json
def deploy(as_json: bool) -> None:
    """Register pools, deployments, automations and the limit of GPUs on the server that PREFECT_API_URL names.

    Again it changes nothing but what has changed in infra/prefect.yaml, automations.yaml and notifications.yaml. With
    PROXIMAL_NOTIFY_URL, the address of a webhook, people are told there of runs that fail, are refused, or have bad
    figures.
    """
    with output.answering(as_json) as tell:
        repository = require_repository()
        from flows.deploy import deploy as register
        from flows.deploy import notifications
        from flows.environment import set_environment

        set_environment(repository)
        found = register(repository)
        if as_json:
            tell({"deployments": [each._asdict() for each in found]})
        else:
            click.echo("\n".join(f"deployment  {each.line()}" for each in found))
            click.echo(f"telling     {notifications()}")


@click.command(short_help="Serve schedules, triggers and runs on this machine.")
@click.option("--prefect-port", type=int, default=4200, show_default=True)
@click.option("--mlflow-port", type=int, default=5000, show_default=True)
def serve_all(prefect_port: int, mlflow_port: int) -> None:
    """Start Prefect's and MLflow's servers, register everything, and start workers, on this machine alone.

    Ctrl-C ends them all. A server that PREFECT_API_URL or MLFLOW_TRACKING_URI names is used, and none started.
    """
    repository = require_repository()
    from flows.serve_all import serve_all as serve

    serve(repository, prefect_port, mlflow_port)


SERVICE = (deploy, serve_all)
