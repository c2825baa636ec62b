"""What a stage prints: shown as it comes, without DVC's talk, and its fault kept for the end."""

from __future__ import annotations

import re
from collections.abc import Callable

# DVC's talk around a stage, which nobody needs here. `--quiet` would hide its faults, too.
_CHATTER = re.compile(
    r"\s*$|Running stage '|> |Updating lock file|Generating lock file|Verifying data sources in stage"
    r"|(Stage )?'.*' didn't change, skipping$|Stage '.*' is cached - skipping run"
    r"|To track the changes with git|\tgit add |To enable auto staging|\tdvc config core.autostage"
    r"|Use `dvc push`|Data and pipelines are up to date"
    r"|WARNING: '.*' is empty\.$"  # an output without a row, such as a quarantine of nothing: no fault of the stage's
)
_DVC_FAULT = "ERROR: "  # how DVC begins a fault
_EXITED = re.compile(r", exited with (-?\d+)$")  # and ends that of a command
_ENTRY_FAULT = "error: "  # how a stage's command begins the message of a fault that the user can mend


class Transcript:
    """Passes on what a stage prints, line by line, and keeps the message of its failure for the end."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._message: list[str] = []
        self._dvc_fault = ""
        self._last_line = ""

    def __call__(self, line: str) -> None:
        if line.startswith(_ENTRY_FAULT) and not self._message:
            self._message.append(line.removeprefix(_ENTRY_FAULT))
        elif self._message and line.startswith("  "):
            self._message.append(line)
        elif line.startswith(_DVC_FAULT):
            self._dvc_fault = line.removeprefix(_DVC_FAULT)
        elif not _CHATTER.match(line):
            self._last_line = line.strip()
            self._show(line)

    def message(self) -> str:
        """What the stage said of its fault: the message that its command ends with, or its last line."""
        return "\n".join(self._message) or self._last_line

    def last_words_of_dvc(self) -> str:
        """What DVC said of its own."""
        return self._dvc_fault or self._last_line

    def status_by_dvc(self) -> int | None:
        """What the stage's command ended with, as DVC has it; None where DVC says nothing of that."""
        found = _EXITED.search(self._dvc_fault)
        return int(found[1]) if found else None
