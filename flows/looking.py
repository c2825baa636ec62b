"""The commands that look at something and run no pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from components.errors import USER_ERROR_STATUS
from flows import completion, output
from flows.environment import quiet_dvc, set_environment
from flows.preconditions import find_root, require_repository


@click.command(short_help="Measure any policy on the held-out prompts.")
@click.argument("policy", metavar="FOLDER_OR_MODEL", shell_complete=completion.policies)
@click.option("--out", type=click.Path(path_type=Path), help="A new folder for the figures and the records.")
@output.as_json
def evaluate(policy: str, out: Path | None, as_json: bool) -> None:
    """Measure any policy, a folder or NAME@ALIAS, against the SFT policy on the held-out prompts."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        set_environment(repository)
        from components.config import load_params
        from components.interface.evaluate import evaluate as measured
        from components.interface.run_tables import evaluation_table
        from components.interface.terminal import print_whole
        from components.place import Place

        place = Place(repository)
        comparison = measured(policy, load_params(place.params), place, out)
        if as_json:
            tell({"policy": policy, "evaluation": comparison})
        else:
            print_whole(evaluation_table(comparison))


@click.command(short_help="Write a policy as a plain Hugging Face folder.")
@click.argument("policy", metavar="[FOLDER_OR_MODEL]", required=False, shell_complete=completion.policies)
@click.option("--to", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
              help="Of the weights there; the policy's own without it.")  # fmt: skip
@click.option("--adapter", is_flag=True, help="Write the adapter alone, as peft reads it, without its base.")
@output.as_json
def export(policy: str | None, to: Path, dtype: str | None, adapter: bool, as_json: bool) -> None:
    """Write a policy, a folder or NAME@ALIAS, to a folder that transformers alone loads; the selected one without."""
    if adapter and dtype:
        raise click.UsageError("--dtype is of a whole model: an adapter is float32")
    with output.answering(as_json) as tell:
        repository = require_repository()
        set_environment(repository)
        from components.interface.export import export as exported
        from components.interface.export import export_adapter, require_new
        from components.interface.policies import policy_folder, version_named
        from components.place import Place
        from components.promotion.card import card_of

        require_new(to)
        version = version_named(policy) if policy else None
        card = card_of(version, repository) if version else None
        with policy_folder(policy or str(Place(repository).selection / "policy")) as folder:
            written = export_adapter(folder, to, card) if adapter else exported(folder, to, dtype, card)
        if as_json:
            tell({**written._asdict(), "folder": str(to)})
        else:
            click.echo(written.sentence())


@click.command(short_help="Print the params, or what they may be.")
@click.argument("key", required=False, shell_complete=completion.keys)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of params.yaml, for editors.")
@output.as_json
def params(key: str | None, schema: bool, as_json: bool) -> None:
    """Print the params that a run takes, those of the chosen method, as YAML; or those of one dotted KEY."""
    from components.interface.params import print_params, print_schema

    if schema and key:
        raise click.UsageError("--schema is of all params: give no KEY with it")
    if schema:
        print_schema()
    else:
        print_params(require_repository(), key, as_json)


@click.command(short_help="Compute a run's memory, tokens and time.")
@click.option("--device", metavar="cpu|NAME|SIZE", default="cpu", show_default=True,
              help="This machine; a GPU such as h100-80gb; or its memory, as 80GiB or 80GB.")  # fmt: skip
@output.as_json
def plan(device: str, as_json: bool) -> None:
    """Compute what a run of these params takes of memory and time, phase by phase; no weights are loaded."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        set_environment(repository)
        from components.config import load_params
        from components.interface.plan.device import device_of
        from components.interface.plan.estimate import estimate
        from components.interface.plan.table import plan_tables
        from components.interface.terminal import print_whole
        from components.place import Place

        place = Place(repository)
        found = estimate(load_params(place.params), place, device_of(device))
        if as_json:
            tell(found.plain())
        else:
            print_whole(plan_tables(found))


@click.command(short_help="Say whether this machine is fit for a run.")
@output.as_json
def doctor(as_json: bool) -> None:
    """Look at what a run here rests on, from Python to the servers, and say what to mend."""
    with output.answering(as_json) as tell:
        root = find_root() or Path()
        set_environment(root)
        from components.interface.doctor import examine, print_findings

        if as_json:
            findings = list(examine(root))
            tell([finding._asdict() for finding in findings])
            fit = all(finding.state != "fault" for finding in findings)
        else:
            fit = print_findings(root)
        if not fit:
            sys.exit(USER_ERROR_STATUS)


@click.command(short_help="Print the way from a model back to the raw rows.")
@click.argument("model", metavar="NAME@ALIAS", shell_complete=completion.models)
@output.as_json
def lineage(model: str, as_json: bool) -> None:
    """Print the way from a registered model, e.g. policy@champion, back to the raw rows."""
    with output.answering(as_json) as tell:
        repository = require_repository()
        set_environment(repository)
        from components.interface.lineage import as_plain, print_lineage
        from components.tracking.lineage import trace

        found = trace(model, repository)
        if as_json:
            tell(as_plain(found))
        else:
            print_lineage(found)


@click.command(short_help="Open MLflow's pages, or Prefect's.")
@click.option("--prefect", is_flag=True, help="Prefect's pages: the runs, their graphs and logs.")
@click.option("--port", type=int, help="5000 without it; 4200 for Prefect.")
def ui(prefect: bool, port: int | None) -> None:
    """Open MLflow's pages, or Prefect's, on this machine until it is interrupted."""
    repository = require_repository()
    set_environment(repository)
    from flows.pages import serve_mlflow, serve_prefect

    serve_prefect(port or 4200) if prefect else serve_mlflow(repository, port or 5000)


@click.command(short_help="Print the stages and what would run.")
def stages() -> None:
    """Print the stages in the order in which they run, what would run now, and what each waits for."""
    repository = require_repository()
    from flows.graph import read_stages
    from flows.tables import stage_lines

    click.echo("\n".join(stage_lines(read_stages(repository))))


@click.command(short_help="Print DVC's experiments in a few columns.")
def experiments() -> None:
    """Print DVC's experiments: gold, judge, KL, win rate, and the params in which they differ."""
    repository = require_repository()
    from components.config import load_params
    from components.place import Place
    from flows.tables import experiment_lines

    quiet_dvc(repository)
    command = [sys.executable, "-m", "dvc", "exp", "show", "--csv"]
    shown = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    if shown.returncode:  # DVC has said why
        sys.exit(shown.returncode)
    click.echo("\n".join(experiment_lines(shown.stdout, load_params(Place(repository).params).model_dump())))


LOOKING = (evaluate, export, params, plan, doctor, lineage, ui, stages, experiments)
