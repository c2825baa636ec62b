"""The command that serves the page on which people compare answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.errors import ConfigError
from components.interface.label import TOKEN_VARIABLE
from flows import completion
from flows.preconditions import require_repository
from flows.web_page import HOST, WebPage

if TYPE_CHECKING:
    from components.interface.label.pairs import Queue

_PROMPTS = 200


@click.command(short_help="Serve a page on which people compare answers.")
@click.option("--policy", "policies", metavar="FOLDER_OR_MODEL", multiple=True, shell_complete=completion.policies,
              help="Whose answers; one or two of them. Without it the SFT policy and the champion.")  # fmt: skip
@click.option("--prompts", type=click.IntRange(min=1), help=f"How many are answered; {_PROMPTS} without it.")
@click.option("--queue", "queue_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The pairs: sampled into it once; labels/queue.json without it.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The labels, for `proximal data add`; labels/labels.jsonl without it.")  # fmt: skip
@click.option("--draw", type=click.IntRange(min=0), default=0, show_default=True,
              help="Another number asks other prompts, and samples other answers of the same policies.")  # fmt: skip
@click.option("--sample-only", is_flag=True, help="Make the queue, and serve no page.")
@click.option("--host", default=HOST, show_default=True, help="Any but this machine's own needs a token.")
@click.option("--port", type=int, default=8501, show_default=True)
@click.option("--token", envvar=TOKEN_VARIABLE, help=f"What annotators must know; or {TOKEN_VARIABLE}.")
def label(
    policies: tuple[str, ...],
    prompts: int | None,
    queue_file: Path | None,
    out: Path | None,
    draw: int,
    sample_only: bool,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Sample pairs of answers, those first on which the scorers disagree, and serve a page on which people pick.

    Every label is on the disk before the page says so. Ctrl-C ends it; the same command goes on where it was.
    """
    repository = require_repository()
    page = WebPage("proximal label", host, port, token, TOKEN_VARIABLE)
    if not sample_only:
        page.require()
    from flows.environment import set_environment

    set_environment(repository)
    queue_file = queue_file or repository / "labels" / "queue.json"
    out = out or repository / "labels" / "labels.jsonl"
    queue = _queue(repository, queue_file, policies, prompts, draw)
    from components.interface.label import pairs
    from components.interface.label.labels import Labels

    click.echo(f"{queue_file}: {len(queue.pairs)} pairs of answers of {pairs.describe(queue.policies)}", err=True)
    if sample_only:
        return
    there = len(Labels(out).all())  # refused here where it is no file of labels
    click.echo(f"{out}: {there} labels; `proximal data add {out}` brings them in", err=True)
    click.echo(f"Label: {page.url} (Ctrl-C ends it)", err=True)
    page.become(Path(pairs.__file__).with_name("page.py"), str(queue_file.resolve()), str(out.resolve()))


def _queue(repository: Path, file: Path, policies: tuple[str, ...], prompts: int | None, draw: int) -> Queue:
    from components.config import load_params
    from components.interface.label import pairs
    from components.interface.label.sampled import named_policies, sample_queue
    from components.place import Place

    place = Place(repository)
    params = load_params(place.params)
    if file.exists():
        queue = pairs.Queue.read(file)
        wanted = tuple(named_policies(policies, params, place).values()) if policies else queue.policies
        if wanted != queue.policies or (prompts or queue.prompts) != queue.prompts:
            raise ConfigError(
                "the queue there was made otherwise",
                where=str(file),
                expected=f"{prompts or queue.prompts} prompts, {pairs.describe(wanted)}",
                found=f"{queue.prompts} prompts, {pairs.describe(queue.policies)}",
                do="name a new file with --queue; without --policy and --prompts this one goes on",
            )
        return queue
    click.echo("sampling answers and scoring them ...", err=True)
    queue = sample_queue(named_policies(policies, params, place), params, place, prompts or _PROMPTS, draw)
    queue.write(file)
    return queue
