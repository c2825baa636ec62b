"""One content in several forms: where it is shown, the roomiest that fits is taken, so that no row is broken in two."""

from __future__ import annotations

import os
import sys

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement

_ROOMY = 1000  # columns, more than any form takes


class Fitting:
    """Forms of one content, the widest first; the last is taken where none fits."""

    def __init__(self, *forms: RenderableType) -> None:
        self.forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=_ROOMY)
        fits = (form for form in self.forms if Measurement.get(console, unbounded, form).maximum <= options.max_width)
        yield next(fits, self.forms[-1])


def reader() -> Console:
    """Who reads what is printed: a terminal of its width, or a file or pipe, which has room for everything."""
    console = Console()
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        console.width = _ROOMY
    return console
