"""Which version of this project runs."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import click

_CODE = Path(__file__).parents[1]


def print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """`proximal --version`: the package's version and, in a checkout, its commit."""
    if wanted and not context.resilient_parsing:
        click.echo(f"proximal {version('proximal-rlhf')}{_commit()}")
        context.exit()


def _commit() -> str:
    if not (_CODE / ".git").exists():
        return ""
    describe = ["git", "describe", "--always", "--dirty=, changed", "--exclude=*"]
    asked = subprocess.run(describe, cwd=_CODE, capture_output=True, text=True, check=False)
    return f", commit {asked.stdout.strip()}" if asked.returncode == 0 else ""
