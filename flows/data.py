"""Raw data: brought from where data.dvc pins it, imported from files in any format, or added to what is there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import click

from components.errors import ConfigError
from flows import output
from flows.commands import dvc
from flows.preconditions import require_repository
from flows.versions import PIN

_SOURCES: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.argument("sources", nargs=-1, required=True, metavar="FILE_OR_NAME..."),
    click.option("--revision", help="Of a data set of the hub: a commit or tag."),
    click.option("--split", "splits", multiple=True,
                 help="Of a data set of the hub: this one alone; it may be given several times."),
    click.option("--column", "columns", metavar="OURS=THEIRS", multiple=True,
                 help="Where the files name a column otherwise, e.g. prompt=question."),
)  # fmt: skip


def _reads_sources(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what says which rows it reads, and how."""
    for option in reversed(_SOURCES):
        command = option(command)
    return command


@click.group(short_help="Bring data in.")
def data() -> None:
    """Bring in the rows to train on: your own, or those that data.dvc pins."""


@data.command("import", short_help="Write files in any format into data/ and pin them.")
@_reads_sources
@click.option("--replace", is_flag=True, help="Put the new file in place of one of its name.")
@output.as_json
def import_(
    sources: tuple[str, ...],
    revision: str | None,
    splits: tuple[str, ...],
    columns: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Read prompts, demonstrations or comparisons in any known format, check them, write them to data/ and pin data/.

    A file or folder here, or OWNER/NAME (or OWNER/NAME:CONFIG) of a data set of the Hugging Face hub.
    """
    with output.answering(as_json) as tell:
        repository = require_repository()
        from components.config import load_params
        from components.interface.importing import import_data, others_in
        from components.place import Place
        from flows.workspace import whole_repository

        place = Place(repository)
        params = load_params(place.params)
        with whole_repository(repository):
            imported = import_data(sources, place.data, params, _columns(columns), revision, splits, replace)
            do = "the files are written; mend what it names, and run `dvc add data`"
            dvc(repository, "add", "data", fault="DVC cannot pin the data", do=do)
        others = others_in(place.data, imported)
        if as_json:
            tell({"imported": [each.plain() for each in imported], "others": others})
            return
        click.echo("\n".join(line for each in imported for line in each.lines()))
        if others:
            click.echo(f"data/ also holds {', '.join(others)}: the pipeline reads these, too; delete what it shall not")
        click.echo("data.dvc pins data/ as it is now; commit it")


@data.command(short_help="Put more rows to the pinned ones, commit, and say so.")
@_reads_sources
@click.option(
    "--to", metavar="NAME.jsonl", help="The file of data/ for all rows; without it, those of the files' names."
)
@output.as_json
def add(
    sources: tuple[str, ...],
    revision: str | None,
    splits: tuple[str, ...],
    columns: tuple[str, ...],
    to: str | None,
    as_json: bool,
) -> None:
    """Put the rows that data/ has not yet to its own, pin and push them, commit data.dvc, and tell Prefect's server.

    All or nothing: what fails on the way leaves all as it was. Where PREFECT_API_URL names no server, none is told.
    """
    with output.answering(as_json) as tell:
        repository = require_repository()
        from components.config import load_params
        from components.interface.adding import add_data
        from components.place import Place
        from flows.versions import new_version
        from flows.workspace import whole_repository

        place = Place(repository)
        params = load_params(place.params)
        with whole_repository(repository):
            bring_absent_data(repository)
            with new_version(repository) as version:
                added = add_data(sources, place.data, params, _columns(columns), revision, splits, to)
                rows = sum(each.rows for each in added)
                files = ", ".join(each.source.file for each in added if each.rows)
                version.publish(rows, f"{rows} more rows of data: {files}")
        if as_json:
            tell({"added": [each.plain() for each in added], "rows": rows, **version.plain()})
            return
        click.echo("\n".join(line for each in added for line in each.lines()))
        click.echo("\n".join(version.lines()))


@data.command(short_help="Write labels in another tool's form.")
@click.argument("labels", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--as", "form", type=click.Choice(["label-studio", "argilla"]), required=True,
              help="Whose: Label Studio's tasks, or Argilla's records.")  # fmt: skip
def export(labels: Path, file: Path, form: str) -> None:
    """Write what people said on the page of `proximal label` as JSON that Label Studio or Argilla imports.

    What they export comes in by `proximal data add`, also with labels that were made there.
    """
    from components.interface.label.exporting import export_labels

    exported = export_labels(labels, file, form)
    click.echo(f"{labels}: {exported.labels:,} labels -> {file}")
    if exported.cut_off:
        click.echo("its last line is still being written, and was left out")


@data.command(short_help="Bring what data.dvc pins.")
def fetch() -> None:
    """Bring the rows that data.dvc pins, unless data/ holds files of yours: those stay, and the next run pins them."""
    from components.digests import digest
    from components.place import Place
    from components.tracking.dvc_files import pinned_data
    from flows.workspace import fill_in

    repository = require_repository()
    bring_absent_data(repository)
    folder = Place(repository).data
    if (found := digest(folder)) == pinned_data(repository):
        return
    if _was_committed(repository, found):
        fill_in(repository, [PIN])  # data.dvc has come to name another version since
    else:
        click.echo("data/ holds files that data.dvc does not pin: they stay, and a run reads and pins them", err=True)


def bring_absent_data(repository: Path) -> None:
    """Put in place what `.dvc` files pin and is not there; an empty folder is none.

    Raises:
        EnvironmentFault: DVC cannot.
    """
    from components.place import Place
    from flows.workspace import absent_data, fill_in

    folder = Place(repository).data
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if absent := absent_data(repository):
        click.echo(f"data is absent: fetching what {', '.join(absent)} pins ...", err=True)
        fill_in(repository, absent)


def _was_committed(repository: Path, digest: str) -> bool:
    """Whether a commit pins this content, so that it can be had again."""
    asked = ["git", "log", "-1", "--format=%H", f"-S{digest}", "--", PIN]
    return bool(subprocess.run(asked, cwd=repository, capture_output=True, text=True, check=False).stdout.strip())


def _columns(texts: tuple[str, ...]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for text in texts:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not ours or not equals or not theirs or ours in columns:
            raise ConfigError(
                "this is no column map", where="--column", expected="OURS=THEIRS, each of ours once", found=text
            )
        columns[ours] = theirs
    return columns
