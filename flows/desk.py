"""A run at a terminal: a line that stays for each finished stage, below them one that moves for each stage at work."""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.progress import TOLD, Progress, clock

_COLOURS = {"ran": "green", "restored": "cyan", "unchanged": "dim", "failed": "bold red", "stopped": "yellow"}
_SPINNER = "|/-\\"
_BAR_COLUMNS = 24


class Desk:
    """The live part of the terminal; gone when the block ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._live = Live(get_renderable=self._moving, console=console, transient=True, refresh_per_second=5)

    def __enter__(self) -> Desk:
        self._live.start()
        self.console.show_cursor(True)  # whatever ends this process, the cursor is there
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def follow(self, progress: Progress) -> None:
        """Show this run."""
        self._progress = progress

    def finished(self, name: str, outcome: str, seconds: float) -> None:
        """Leave a line for a stage that is done."""
        line = self._begin(name)
        line.append(f"{outcome:<10}", style=_COLOURS.get(outcome, ""))
        if outcome != "unchanged":
            line.append(f"{clock(seconds):>6}")
        self.console.print(line)

    def warned(self, name: str, line: str) -> None:
        """Leave a warning of a stage."""
        begin = self._begin(name)
        row = Table.grid()
        row.add_column(width=begin.cell_len)
        row.add_column(style="yellow")
        row.add_row(begin, Text(line.replace(f"warning: {name}: ", "warning: ")))
        self.console.print(row)

    def _begin(self, name: str) -> Text:
        place = self._progress.place(name) if self._progress else ""
        return Text(f"{place:>5}  {name:<16} ")

    def _moving(self) -> Group:
        """What is drawn anew: the stages at work, then all of them."""
        if self._progress is None:
            return Group(Text(f"{self._turn()} reading the pipeline"))
        meant = {stage.name: stage.description for stage in self._progress.stages}
        lines = []
        for name, work in list(self._progress.at_work.items()):
            if name in meant:
                line = self._begin(name).append(f"{clock(self._progress.seconds_of(work)):<6}  ", style="dim")
                room = self.console.width - line.cell_len - 1
                said = work.line.strip().removeprefix(f"{name}: ")
                if not said or (work.last is None and len(said) > room):  # half a sentence tells less than none
                    said = meant[name]
                lines.append(line.append(textwrap.shorten(said, max(room, 8), placeholder=" ...")))
        bar = Table.grid(padding=(0, 1))
        total = len(self._progress.stages)
        bar.add_row(
            f"{self._turn():>4}", ProgressBar(total, self._progress.done(), width=_BAR_COLUMNS), str(self._progress)
        )
        return Group(*lines, bar)

    def _turn(self) -> str:
        return _SPINNER[int(time.monotonic() * 5) % len(_SPINNER)]


@contextmanager
def quiet_handlers(console: Console) -> Iterator[None]:
    """Let what is logged beside the stages' own lines appear above the moving ones."""
    handlers = [handler for handler in logging.getLogger().handlers if hasattr(handler, "console")]
    before = [handler.console for handler in handlers]

    def is_not_told(record: logging.LogRecord) -> bool:
        return not getattr(record, TOLD, False)

    for handler in handlers:
        handler.console = console
        handler.addFilter(is_not_told)
    try:
        yield
    finally:
        for handler, own in zip(handlers, before, strict=True):
            handler.console = own
            handler.removeFilter(is_not_told)
