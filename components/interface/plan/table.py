"""The tables of `proximal plan`."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from components.interface.plan.device import GIB
from components.interface.plan.estimate import Estimate, Row
from components.interface.tables import plain_table


def plan_tables(found: Estimate) -> Group:
    """Memory by phase, whether it fits and what would help, and the tokens."""
    parts: list[Table | Text] = [_memory(found), _verdict(found)]
    if found.knobs:
        parts.append(_knobs(found))
    if found.tokens:
        parts.append(_tokens(found))
    if found.seconds:
        parts.append(_seconds(found))
    parts.append(Text(f"lengths: {found.lengths}"))
    return Group(*parts)


def _memory(found: Estimate) -> Table:
    title = f"Memory in GiB, a model of {found.parameters / 1e6:,.1f} M parameters"
    with_server = [] if found.server is None else ["server"]
    table = plain_table(title, "weights", "training", "work", "beside", *with_server, "total")
    for row in found.rows:
        phase = row.phase
        weights = sum(phase.roles.values())
        of_server = [row.server] if with_server else []
        sizes = (weights, phase.training, phase.work, row.beside, *of_server, row.total)
        table.add_row(_name(row), *map(_gib, sizes), style="bold" if row == found.peak else None)
    if (server := found.server) is not None:
        sizes = (server.weights, 0, server.cache, server.beside, server.total, server.total)
        table.add_row("alignment, the vLLM server", *map(_gib, sizes))
    return table


def _verdict(found: Estimate) -> Text:
    roles = ", ".join(f"{role} {_gib(size)}" for role, size in found.peak.phase.roles.items())
    fits = "fits" if found.fits else "DOES NOT FIT"
    text = f"{fits}: the peak is {_gib(found.peak.total)} GiB in {_name(found.peak)} (weights: {roles}); "
    if (count := found.peak.processes) > 1:
        text = f"{text}{count} processes take {_gib(found.peak.of_process)} GiB each; "
    if found.peak.server:
        text = f"{text}the vLLM server {_gib(found.peak.server)} GiB of it; "
    return Text(f"{text}{found.device.name} has {_gib(found.device.memory)} GiB")


def _knobs(found: Estimate) -> Table:
    table = plain_table(f"What {_name(found.peak)} takes with one key changed, in GiB", "total")
    for change, size in found.knobs:
        table.add_row(change, _gib(size))
    return table


def _tokens(found: Estimate) -> Table:
    table = plain_table("Tokens", "sampled", "passed", "trained")
    for each in found.tokens:
        table.add_row(each.stage, *(f"{number:,}" for number in (each.sampled, each.passed, each.trained)))
    return table


def _seconds(found: Estimate) -> Table:
    table = plain_table("Minutes of computing, a rough guess", "sampling", "passing",
                        "training", "total")  # fmt: skip
    for each in found.seconds:
        minutes = (each.sampling, each.passing, each.training, each.total)
        table.add_row(each.stage, *(f"{number / 60:,.1f}" for number in minutes))
    return table


def _name(row: Row) -> str:
    return f"{row.phase.stage}, {row.phase.name}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
