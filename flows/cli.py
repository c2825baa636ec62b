"""The command line. Heavy imports are inside the commands: `proximal --help` is quick."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError

if TYPE_CHECKING:
    from flows.rlhf import Result

SEEDS_FILE = Path("artifacts") / "seeds.json"


def main() -> None:
    """Run a command; an error that the user can mend becomes one message and exit status 2."""
    try:
        commands()
    except ProximalError as error:
        _fail(str(error), USER_ERROR_STATUS)


@click.group()
def commands() -> None:
    """From human preferences to an aligned language model. Run from the root of the repository."""


@commands.command()
@click.option("--promotion/--no-promotion", default=True, help="Offer the result for promotion to champion.")
@click.option("--profile", is_flag=True, help="Show at the end where the wall time went.")
def run(promotion: bool, profile: bool) -> None:
    """Bring the whole pipeline up to date: runs what has changed since the last run, and nothing else."""
    repository = _repository()
    _start(repository)
    from flows.terminal import show_profile, show_result

    started = time.time()
    result = _run_flow(repository=repository, promotion=promotion)
    show_result(repository, result.evaluation)
    if profile:
        show_profile(result.times, started)


@commands.command()
@click.option("--revision", default="HEAD", show_default=True, help="The git revision to run.")
def seeds(revision: str) -> None:
    """Run the pipeline with three seeds, each in a clone of its own, and print the table of README."""
    repository = _repository()
    _start(repository)
    from components.artifacts import write_json
    from flows.seeds import SEEDS, criteria
    from flows.terminal import seeds_table, wide_console

    if _uncommitted(repository):
        click.echo(f"note: these runs use {revision} as committed, without the changes in this folder", err=True)
    evaluations: dict[int, dict[str, Any]] = {}
    for seed in SEEDS:
        result = _run_flow(repository=repository, revision=revision, overrides={"seed": seed}, promotion=False)
        if result.evaluation is None:
            raise ConfigError("the pipeline does not evaluate", where=str(repository / "dvc.yaml"))
        evaluations[seed] = result.evaluation
    write_json(repository / SEEDS_FILE, {str(seed): evaluation for seed, evaluation in evaluations.items()})
    wide_console().print(seeds_table(evaluations))
    click.echo(f"written to {SEEDS_FILE}")
    if not all(claim.holds for evaluation in evaluations.values() for claim in criteria(evaluation)):
        sys.exit(1)


@commands.command()
@click.argument("model", metavar="NAME@ALIAS")
def lineage(model: str) -> None:
    """Print the way from a registered model, e.g. policy@champion, back to the raw rows."""
    _environment(_repository())
    from components.lineage import print_lineage

    print_lineage(model)


@commands.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """Open the MLflow UI on this machine."""
    repository = _repository()
    _environment(repository)
    from flows.environment import tracking_uri

    arguments = ["mlflow", "ui", "--backend-store-uri", tracking_uri(repository), "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, "-m", *arguments, "--port", str(port)])


@commands.command()
def prepare() -> None:
    """Make the databases of Prefect and MLflow, so that the first run need not (`make setup` does this)."""
    _start(_repository())


def _repository() -> Path:
    """The present folder.

    Raises:
        ConfigError: it holds no pipeline, or its params are not valid.
    """
    from components.config import load_params
    from components.paths import PARAMS

    load_params(PARAMS)
    return Path.cwd()


def _uncommitted(repository: Path) -> bool:
    status = ["git", "status", "--porcelain", "--untracked-files=no"]
    return bool(subprocess.run(status, cwd=repository, capture_output=True, check=True).stdout)


def _environment(repository: Path) -> None:
    from flows.environment import set_environment

    set_environment(repository)


def _start(repository: Path) -> None:
    """Get going, at the same time, what a run needs: Prefect's server, imports, MLflow's database."""
    from flows.server import start_local_api

    _environment(repository)
    click.echo("starting Prefect, DVC and MLflow ...", err=True)
    server = start_local_api(Path(os.environ["PREFECT_HOME"]))
    import dvc.repo  # noqa: F401  the flow reads the graph with it

    import flows.rlhf  # noqa: F401
    from components.tracking import reconcile_dead_runs
    from flows.terminal import quiet_engine

    quiet_engine()
    reconcile_dead_runs()
    server.wait()


def _run_flow(**parameters: Any) -> Result:
    from flows.rlhf import PipelineFailure, Result, rlhf

    state = rlhf(**parameters, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, Result):
        return result
    status = result.status if isinstance(result, PipelineFailure) else 1
    _fail(str(result), USER_ERROR_STATUS if isinstance(result, ProximalError) else status)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
