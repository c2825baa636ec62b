"""The command line. Heavy imports are inside the commands: `proximal --help` is quick."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from components import status_file
from components.errors import USER_ERROR_STATUS, ProximalError
from flows import completion, output
from flows.champions import CHAMPIONS
from flows.data import bring_absent_data, data
from flows.forgetting import forget
from flows.label import label
from flows.local_run import run_flow, start
from flows.looking import LOOKING
from flows.preconditions import (
    parse_changes,
    require_committed,
    require_repository,
    require_sound,
)
from flows.rounds import iterate_
from flows.service import SERVICE
from flows.syncing import sync
from flows.talking import TALKING
from flows.version import print_version

_EPILOG = """\b
Exit status:
  0    done, also where a candidate was refused
  1    a fault of ours, of a stage or of the machine
  2    yours to mend: the message says how
  130  interrupted; another signal n gives 128 + n
Tab completion: eval "$(_PROXIMAL_COMPLETE=bash_source proximal)"
"""


def main() -> None:
    """Run a command; an error that the user can mend becomes one message and exit status 2."""
    status_file.begin()  # a comparison's stages are whole runs
    status: Any = 1
    try:
        status = commands(standalone_mode=False) or 0
    except ProximalError as error:
        click.echo(f"error: {error}", err=True)
        status = USER_ERROR_STATUS
    except click.ClickException as error:  # a command line that says nothing
        error.show()
        status = error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        status = 128 + signal.SIGINT
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        status_file.end(status)
    sys.exit(status)


@click.group(epilog=_EPILOG)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version,
              help="Print the version and the commit.")  # fmt: skip
def commands() -> None:
    """From human preferences to an aligned language model. Run it anywhere in a clone of the project."""


@commands.command(short_help="Run what has changed since the last run.")
@click.option("--promotion/--no-promotion", default=True, help="Offer the result for promotion to champion.")
@click.option(
    "--set", "changes", metavar="KEY=VALUE", multiple=True, shell_complete=completion.keys,
    help="Another value for a dotted key of params.yaml, in a clone of the last commit; may be given several times.",
)  # fmt: skip
@click.option("--figures", "figures_file", type=click.Path(path_type=Path),
              help="Write the figures alone there, too: what DVC keeps of a comparison's run.")  # fmt: skip
@output.as_json
def run(promotion: bool, changes: tuple[str, ...], figures_file: Path | None, as_json: bool) -> None:
    """Bring the whole pipeline up to date: runs what has changed since the last run, and nothing else."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        overrides = parse_changes(changes)
        require_sound(repository, overrides)
        if overrides:
            require_committed(repository)
        else:
            bring_absent_data(repository)
        start(repository)
        from components.artifacts import write_json
        from components.interface.terminal import show_result
        from flows.rlhf import rlhf

        result = run_flow(rlhf, repository=repository, promotion=promotion, overrides=overrides)
        figures = {"evaluation": result.evaluation, "cost": result.cost}
        if figures_file is not None:
            write_json(figures_file, figures)
        ending = result.ending.below(repository)
        if as_json:
            tell({**figures, "stages": result.stages, **ending.plain()})
        else:
            show_result(None if overrides else repository, result.evaluation, ending)


@commands.command(short_help="Run several methods on the same data.")
@click.option("--method", "methods", multiple=True, shell_complete=completion.methods,
              help="May be given several times; all of the matrix without it.")  # fmt: skip
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True)
@output.as_json
def compare(methods: tuple[str, ...], seeds: tuple[int, ...], as_json: bool) -> None:
    """Run several methods on the same data, each with several seeds, and print their figures side by side."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        figures = _compare(repository, methods, seeds)
        from components.interface.comparison_plot import draw_comparison
        from components.interface.comparison_tables import comparison_tables
        from components.interface.terminal import print_whole
        from flows.matrix import FIGURES

        plot = repository / FIGURES / "comparison.png"
        draw_comparison(figures, plot)
        if as_json:
            tell({"runs": _runs(figures), "plot": str(plot)})
            return
        click.echo("Held-out prompts, mean [95 % interval, paired by prompt]\n")
        for table in comparison_tables(figures):
            print_whole(table)
        click.echo(f"plot: {plot}")


@commands.command(short_help="Run three seeds; print the table of README.")
@output.as_json
def seeds(as_json: bool) -> None:
    """Run the pipeline with three seeds, each in a clone of its own, and print the table of README."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        from components.config import load_params
        from components.interface.seeds import SEEDS, criteria
        from components.place import Place

        figures = _compare(repository, [load_params(Place(repository).params).method], SEEDS)
        from components.interface.run_tables import seeds_table
        from components.interface.terminal import print_whole

        evaluations = {seed: content["evaluation"] for (_, seed), content in figures.items()}
        claims = {seed: criteria(evaluation) for seed, evaluation in evaluations.items()}
        if as_json:
            held = {seed: {claim.claim: claim.holds for claim in found} for seed, found in claims.items()}
            tell({"runs": _runs(figures), "claims": held})
        else:
            print_whole(seeds_table(evaluations))
        if not all(claim.holds for found in claims.values() for claim in found):
            sys.exit(1)


@commands.command(short_help="Make the databases of Prefect and MLflow.")
def prepare() -> None:
    """Make the databases of Prefect and MLflow, so that the first run need not (`make setup` does this)."""
    start(require_repository())


data.add_command(forget)
for command in (*LOOKING, *TALKING, *CHAMPIONS, *SERVICE, data, iterate_, label, sync):
    commands.add_command(command)


def _compare(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], dict[str, Any]]:
    require_sound(repository, {})
    bring_absent_data(repository)
    require_committed(repository)
    from flows.matrix import methods_there, read_runs

    methods = methods or methods_there(repository)
    read_runs(repository, methods, seeds)  # refused here, it leaves no flow run behind
    start(repository)
    from flows.compare import compare

    figures: dict[tuple[str, int], dict[str, Any]] = run_flow(
        compare, repository=repository, methods=list(methods), seeds=list(seeds)
    )
    return figures


def _runs(figures: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"method": method, "seed": seed, **content} for (method, seed), content in figures.items()]


if __name__ == "__main__":
    main()
