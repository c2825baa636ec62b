"""What a command prints for scripts: JSON, and nothing else on its standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and all else to standard error.")


@contextmanager
def answering(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Gives what prints an answer as JSON.

    Where the answer is to be JSON, whatever else is printed in the block goes to standard error, also by libraries and
    by processes that are started in it.
    """
    if not as_json:
        yield _print
        return
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2, 1)
        try:
            yield lambda content: _print(content, stdout)
        finally:
            sys.stdout.flush()
            os.dup2(stdout.fileno(), 1)


def _print(content: Any, file: Any = None) -> None:
    print(json.dumps(content, indent=2, allow_nan=False), file=file, flush=True)
