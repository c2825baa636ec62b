"""What the worlds' commands have in common."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from components.artifacts import write_jsonl
from components.errors import USER_ERROR_STATUS, ProximalError

P = ParamSpec("P")
T = TypeVar("T")


def told_in_one_message(command: Callable[P, T]) -> Callable[P, T]:
    """Turn an error that the user can mend into one message and exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ProximalError as error:
            click.echo(error, err=True)
            sys.exit(USER_ERROR_STATUS)

    return run


def write_files(out: Path, files: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write raw data, a row a line, and say how much.

    Raises:
        click.BadParameter: the folder cannot be made.
        EnvironmentFault: a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(
            f"expected a folder that can be written to, found: {error}", param_hint="--out"
        ) from error
    for name, rows in files.items():
        write_jsonl(out / name, rows)
        click.echo(f"{out / name}: {len(rows)} rows")
