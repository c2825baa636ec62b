"""The command line. Heavy imports are inside the commands: `proximal --help` is quick."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError

# What a run in a clone takes from the last commit: with changes here, it would not run what is seen.
COMMITTED = ("components", "flows", "infra/accelerate", "params.yaml", "dvc.yaml", "data.dvc")


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
@click.option(
    "--set", "changes", metavar="KEY=VALUE", multiple=True,
    help="Another value for a dotted key of params.yaml, in a clone of the last commit; may be given several times.",
)  # fmt: skip
@click.option("--figures", type=click.Path(path_type=Path), help="Write the final figures there too, as JSON.")
def run(promotion: bool, changes: tuple[str, ...], figures: Path | None) -> None:
    """Bring the whole pipeline up to date: runs what has changed since the last run, and nothing else."""
    repository = _repository()
    overrides = dict(_change(text) for text in changes)
    _require_sound(repository, overrides)
    if overrides:
        _require_committed(repository)
    _start(repository)
    from components.artifacts import write_json
    from flows.rlhf import rlhf
    from flows.terminal import show_result

    result = _run_flow(rlhf, repository=repository, promotion=promotion, overrides=overrides)
    if figures is not None:
        write_json(figures, {"evaluation": result.evaluation, "cost": result.cost})
    show_result(None if overrides else repository, result.evaluation)


@commands.command()
@click.option("--method", "methods", multiple=True, help="May be given several times; all of them without it.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True)
def compare(methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """Run several methods on the same data, each with several seeds, and print their figures side by side."""
    repository = _repository()
    from components.config import METHODS

    figures = _compare(repository, methods or METHODS, seeds)
    from flows.compare import FIGURES, comparison_tables
    from flows.comparison_plot import draw_comparison
    from flows.terminal import print_whole

    click.echo("Held-out prompts, mean [95 % interval, paired by prompt]\n")
    for table in comparison_tables(figures):
        print_whole(table)
    plot = FIGURES / "comparison.png"
    draw_comparison(figures, repository / plot)
    click.echo(f"plot: {plot}")


@commands.command()
def seeds() -> None:
    """Run the pipeline with three seeds, each in a clone of its own, and print the table of README."""
    repository = _repository()
    from components.config import load_params
    from components.interface.seeds import SEEDS, criteria
    from components.paths import PARAMS

    figures = _compare(repository, [load_params(PARAMS).method], SEEDS)
    from flows.terminal import print_whole, seeds_table

    evaluations = {seed: content["evaluation"] for (_, seed), content in figures.items()}
    print_whole(seeds_table(evaluations))
    if not all(claim.holds for evaluation in evaluations.values() for claim in criteria(evaluation)):
        sys.exit(1)


@commands.command()
@click.argument("model", metavar="NAME@ALIAS")
def lineage(model: str) -> None:
    """Print the way from a registered model, e.g. policy@champion, back to the raw rows."""
    _environment(_repository())
    from components.interface.lineage import print_lineage

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
        ConfigError: it holds no pipeline, its params are not valid, or it is no git repository.
    """
    from components.config import load_params
    from components.paths import PARAMS

    load_params(PARAMS)
    if subprocess.run(["git", "rev-parse"], capture_output=True, check=False).returncode != 0:
        raise ConfigError(
            "this folder is no git repository",
            where=str(Path.cwd()),
            expected="a clone of the project: DVC and lineage rest on its commits",
            found="files without a .git folder",
            do="`git clone` the project, or here: `git init`, `git add --all` and `git commit --message start`",
        )
    return Path.cwd()


def _change(text: str) -> tuple[str, Any]:
    """A dotted key and its value, read as YAML, from KEY=VALUE."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("no =")
        return key.strip(), YAML(typ="safe").load(value)
    except (ValueError, YAMLError) as fault:
        raise ConfigError("this is no change", where="--set", expected="KEY=VALUE", found=text) from fault


def _require_committed(repository: Path) -> None:
    """
    Raises:
        ConfigError: what a clone would run is not what lies in the folder.
    """
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", *COMMITTED]
    changed = subprocess.run(status, cwd=repository, capture_output=True, check=True, text=True).stdout.split("\n")
    if changed := [line[3:] for line in changed if line]:
        raise ConfigError(
            "a run in a clone uses the last commit, and this folder has changed since",
            where=", ".join(changed),
            expected="no changes",
            do="commit them, or `git stash`",
        )


def _require_sound(repository: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse what is sure to fail before a server is started, a clone is made and a stage is paid for.

    Raises:
        ConfigError: a key or value that cannot be, or an Accelerate config that would not be obeyed.
    """
    from components.config.accelerate import accelerate_config
    from flows.workspace import overridden

    accelerate_config(repository / overridden(repository, overrides).compute.accelerate_config)


def _compare(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], dict[str, Any]]:
    _require_sound(repository, {})
    _require_committed(repository)
    _start(repository)
    from flows.compare import compare

    figures: dict[tuple[str, int], dict[str, Any]] = _run_flow(
        compare, repository=repository, methods=list(methods), seeds=list(seeds)
    )
    return figures


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


def _run_flow(flow: Any, **parameters: Any) -> Any:
    from flows.stages import PipelineFailure

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
    status = result.status if isinstance(result, PipelineFailure) else 1
    _fail(str(result), USER_ERROR_STATUS if isinstance(result, ProximalError) else status)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
