"""Rows that somebody wants gone: the next version of the data without them, and who has seen them."""

from __future__ import annotations

import click

from flows import output
from flows.data import bring_absent_data
from flows.environment import set_environment
from flows.preconditions import require_repository

PURGE = """\
older versions of the data, and what was made from them, stay in DVC's cache and remote; to purge them, in this order:
  proximal run
  git commit dvc.lock -m "made anew"
  dvc gc --workspace --cloud
the first two make all anew that was made from these rows, so that this commit needs nothing of before; the last one
deletes, here and in the remote, all that this commit does not need: results of other branches and experiments, too.
MLflow's runs keep answers and samples, and versions that saw the rows their weights: delete those that must not stay.\
"""


@click.command(short_help="Take an annotator's rows, or rows by id, out.")
@click.argument("names", nargs=-1, required=True, metavar="ANNOTATOR_OR_ROW...")
@click.option("--yes", is_flag=True, help="Take them out; without it they are only counted.")
@output.as_json
def forget(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Make the next version of the data without an annotator's rows, or rows by id, and name all models that saw them.

    Without --yes nothing is written: it counts the rows and names the models.
    """
    with output.answering(as_json) as tell:
        repository = require_repository()
        set_environment(repository)
        from components.config import load_params
        from components.interface.forgetting import find_rows, require_known, rewrite, who_saw
        from components.place import Place
        from flows.versions import new_version
        from flows.workspace import whole_repository

        place = Place(repository)
        columns = load_params(place.params).data.columns
        with whole_repository(repository):
            bring_absent_data(repository)
            found, saw = find_rows(names, place.data, columns), who_saw(names, repository, columns)
            require_known(names, found, saw)
            commit = None
            if yes and found:
                rows = sum(len(each.numbers) for each in found)
                with new_version(repository) as version:
                    rewrite(found, place.data)
                    version.publish(rows, f"{rows} rows fewer of data")  # no name: the history would keep that, too
                commit = version.commit
        if as_json:
            tell({
                "rows": {each.file: len(each.numbers) for each in found},
                "models": [{"model": each.version.name, "version": each.version.number, "rows": each.rows,
                            "unknown": list(each.unknown)} for each in saw],
                "commit": commit,
            })  # fmt: skip
            return
        for each in found:
            click.echo(f"data/{each.file}: {len(each.numbers):,} of {each.rows:,} rows")
        if not found:
            click.echo("data/ holds no such row")
        click.echo("\n".join(["models that saw them:" if saw else "no registered model saw them"]
                             + [f"  {each.line()}" for each in saw]))  # fmt: skip
        if any(each.unknown for each in saw):
            click.echo(
                "`dvc fetch --all-commits data.dvc` brings all versions of the data that remotes have: ask again"
            )
        if commit:
            click.echo(PURGE)
        elif found:
            click.echo("nothing was written: --yes takes them out")
