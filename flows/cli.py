"""The command line. Heavy imports are inside the commands: `proximal --help` is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from components import status_file
from components.errors import USER_ERROR_STATUS, ProximalError
from flows.environment import set_environment, tracking_uri
from flows.local_run import run_flow, start
from flows.preconditions import parse_change, require_committed, require_repository, require_sound


def main() -> None:
    """Run a command; an error that the user can mend becomes one message and exit status 2."""
    status_file.begin()  # a comparison's stages are whole runs
    status: Any = 1
    try:
        commands()
    except ProximalError as error:
        click.echo(f"error: {error}", err=True)
        status = USER_ERROR_STATUS
    except SystemExit as ended:  # click's way to end, also after success
        status = ended.code or 0
    finally:
        status_file.end(status)
    sys.exit(status)


@click.group()
def commands() -> None:
    """From human preferences to an aligned language model. Run from the root of the repository."""


@commands.command()
@click.option("--promotion/--no-promotion", default=True, help="Offer the result for promotion to champion.")
@click.option(
    "--set", "changes", metavar="KEY=VALUE", multiple=True,
    help="Another value for a dotted key of params.yaml, in a clone of the last commit; may be given several times.",
)  # fmt: skip
@click.option("--figures", type=click.Path(path_type=Path), help="Write the final figures there too, as JSON.")
def run(promotion: bool, changes: tuple[str, ...], figures: Path | None) -> None:
    """Bring the whole pipeline up to date: runs what has changed since the last run, and nothing else."""
    repository = require_repository()
    overrides = dict(parse_change(text) for text in changes)
    require_sound(repository, overrides)
    if overrides:
        require_committed(repository)
    start(repository)
    from components.artifacts import write_json
    from components.interface.terminal import show_result
    from flows.rlhf import rlhf

    result = run_flow(rlhf, repository=repository, promotion=promotion, overrides=overrides)
    if figures is not None:
        write_json(figures, {"evaluation": result.evaluation, "cost": result.cost})
    show_result(None if overrides else repository, result.evaluation)


@commands.command()
@click.option("--method", "methods", multiple=True, help="May be given several times; all of them without it.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True)
def compare(methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """Run several methods on the same data, each with several seeds, and print their figures side by side."""
    repository = require_repository()
    from components.config import METHODS

    figures = _compare(repository, methods or METHODS, seeds)
    from components.interface.comparison_plot import draw_comparison
    from components.interface.comparison_tables import comparison_tables
    from components.interface.terminal import print_whole
    from flows.compare import FIGURES

    click.echo("Held-out prompts, mean [95 % interval, paired by prompt]\n")
    for table in comparison_tables(figures):
        print_whole(table)
    plot = FIGURES / "comparison.png"
    draw_comparison(figures, repository / plot)
    click.echo(f"plot: {plot}")


@commands.command()
def seeds() -> None:
    """Run the pipeline with three seeds, each in a clone of its own, and print the table of README."""
    repository = require_repository()
    from components.config import load_params
    from components.interface.seeds import SEEDS, criteria
    from components.place import Place

    figures = _compare(repository, [load_params(Place().params).method], SEEDS)
    from components.interface.run_tables import seeds_table
    from components.interface.terminal import print_whole

    evaluations = {seed: content["evaluation"] for (_, seed), content in figures.items()}
    print_whole(seeds_table(evaluations))
    if not all(claim.holds for evaluation in evaluations.values() for claim in criteria(evaluation)):
        sys.exit(1)


@commands.command()
@click.argument("policy", metavar="FOLDER_OR_MODEL")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder for the figures and the records.")
def evaluate(policy: str, out: Path | None) -> None:
    """Measure any policy, a folder or NAME@ALIAS, against the SFT policy on the held-out prompts."""
    repository = require_repository()
    set_environment(repository)
    from components.config import load_params
    from components.interface.evaluate import evaluate as measured
    from components.interface.run_tables import evaluation_table
    from components.interface.terminal import print_whole
    from components.place import Place

    place = Place()
    print_whole(evaluation_table(measured(policy, load_params(place.params), place, out)))


@commands.command()
def doctor() -> None:
    """Look at what a run here rests on, from Python to the servers, and say what to mend."""
    set_environment(Path.cwd())
    from components.interface.doctor import print_findings

    if not print_findings(Path.cwd()):
        sys.exit(USER_ERROR_STATUS)


@commands.command()
@click.argument("model", metavar="NAME@ALIAS")
def lineage(model: str) -> None:
    """Print the way from a registered model, e.g. policy@champion, back to the raw rows."""
    set_environment(require_repository())
    from components.interface.lineage import print_lineage

    print_lineage(model)


@commands.command()
def stages() -> None:
    """Print the stages in the order in which they run, what would run now, and what each waits for."""
    repository = require_repository()
    from flows.graph import read_stages
    from flows.tables import stage_lines

    click.echo("\n".join(stage_lines(read_stages(repository))))


@commands.command()
def experiments() -> None:
    """Print DVC's experiments: gold, judge, KL, win rate, and the params in which they differ."""
    require_repository()
    from components.config import load_params
    from components.place import Place
    from flows.tables import experiment_lines

    shown = subprocess.run([sys.executable, "-m", "dvc", "exp", "show", "--csv"], stdout=subprocess.PIPE, text=True)
    if shown.returncode:  # DVC has said why
        sys.exit(shown.returncode)
    click.echo("\n".join(experiment_lines(shown.stdout, load_params(Place().params).model_dump())))


@commands.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """Open the MLflow UI on this machine."""
    repository = require_repository()
    set_environment(repository)
    from components.tracking import runs_url

    store = tracking_uri(repository)
    click.echo(f"open {runs_url(port)}")
    if store.startswith("http"):  # a server of its own
        return
    # One person looks: one process, none for jobs that nothing here asks for, and no word of what it is made of.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    stores = ("--backend-store-uri", store, "--registry-store-uri", store)
    server = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning")
    command = [sys.executable, "-m", "mlflow", "ui", *stores, *server]
    os.execve(sys.executable, command, {**quiet, **os.environ})


@commands.command()
def prepare() -> None:
    """Make the databases of Prefect and MLflow, so that the first run need not (`make setup` does this)."""
    start(require_repository())


def _compare(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], dict[str, Any]]:
    require_sound(repository, {})
    require_committed(repository)
    start(repository)
    from flows.compare import compare

    figures: dict[tuple[str, int], dict[str, Any]] = run_flow(
        compare, repository=repository, methods=list(methods), seeds=list(seeds)
    )
    return figures


if __name__ == "__main__":
    main()
