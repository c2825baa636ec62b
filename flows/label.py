"""The command that serves the page on which people compare answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.errors import ConfigError, EnvironmentFault
from components.interface.label import TOKEN_VARIABLE
from flows import completion
from flows.preconditions import require_repository

if TYPE_CHECKING:
    from components.interface.label.pairs import Queue

_PROMPTS = 200
# Nobody is told of its use, no browser is opened, no file is watched, and nothing is offered but the page.
_QUIET = {
    "browser.gatherUsageStats": "false",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "client.toolbarMode": "minimal",
    "logger.level": "warning",
}


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
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but this machine's own needs a token.")
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
    if not sample_only:
        _require_streamlit()
        _require_reachable(host, port, token)
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
    click.echo(f"Label: http://{host}:{port} (Ctrl-C ends it)", err=True)
    _become_page(queue_file, out, host, port, token)


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


def _require_streamlit() -> None:
    if find_spec("streamlit") is None:
        raise EnvironmentFault(
            "the page is made with Streamlit, which is not installed",
            where="proximal label",
            expected="the extra `label`",
            found="no module streamlit",
            do="run `pip install -c constraints.txt -e '.[label]'`",
        )


def _require_reachable(host: str, port: int, token: str | None) -> None:
    """
    Raises:
        ConfigError: the address is open to others and there is no token, is every address, or is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, OverflowError) as fault:
        raise ConfigError("this is no address", where=f"--host {host} --port {port}", found=str(fault)) from fault
    addresses = [ipaddress.ip_address(str(address[4][0])) for address in found]
    if any(address.is_unspecified for address in addresses):
        expected = "the address by which annotators reach this machine"
        raise ConfigError("this is every address", where="--host", expected=expected, found=host)
    if not token and not all(address.is_loopback for address in addresses):
        raise ConfigError(
            "others can reach this address",
            where=f"--host {host}",
            expected="a token with it",
            found="none",
            do=f"give one with --token, or in {TOKEN_VARIABLE}, which no list of processes shows",
        )
    with socket.socket(found[0][0]) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(found[0][4])
        except OSError as fault:
            where, do = f"--host {host} --port {port}", "end what listens there, or name another port"
            raise ConfigError("nothing can be served there", where=where, found=str(fault), do=do) from fault


def _become_page(queue: Path, out: Path, host: str, port: int, token: str | None) -> None:
    from components.interface.label import pairs

    page = Path(pairs.__file__).with_name("page.py")
    options = {**_QUIET, "server.address": host, "browser.serverAddress": host, "server.port": str(port)}
    if token:
        os.environ[TOKEN_VARIABLE] = token
    sys.stderr.flush()
    command = [sys.executable, "-m", "streamlit", "run", str(page)]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    os.execv(sys.executable, [*command, "--", str(queue.resolve()), str(out.resolve())])
