"""Delivers what runs here have told and the tracking store does not have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.errors import EnvironmentFault
from components.tracking import store
from components.tracking.delivery import deliver
from components.tracking.journal import Journal

AT_WORK, ELSEWHERE, DELIVERED, REFUSED = "at work", "of another store", "delivered", "refused"


@dataclass(frozen=True)
class Delivered:
    """What became of the records of one run.

    Args:
        name: of the run, e.g. alignment-2.
        outcome: one of the words above; what is at work is delivered by whoever is at work on it.
        points, files: how many went to the store.
        run: its id there.
        folder: where the records are, or were.
        why: it is refused, or of which store it is.
    """

    name: str
    outcome: str
    points: int = 0
    files: int = 0
    run: str = ""
    folder: str = ""
    why: str = ""


def deliver_left() -> list[Delivered]:
    """Deliver all that nobody is at work on; what a store refuses stays.

    Raises:
        StoreAway: the store does not answer.
    """
    return [_deliver(journal) for journal in Journal.left()]


def count_left() -> int:
    """How many runs have records that wait, or are at work."""
    left = list(Journal.left())
    for journal in left:
        if isinstance(journal, Journal):
            journal.close()
    return len(left)


def _deliver(journal: Journal | Path) -> Delivered:
    if isinstance(journal, Path):
        return Delivered(journal.name.rpartition("-")[0], AT_WORK, folder=str(journal))
    place, whose = str(journal.path), journal.state.get("store", "")
    if whose != store.name():
        journal.close()
        return Delivered(journal.name, ELSEWHERE, folder=place, why=whose)
    entries = [entry for entry, _ in journal.waiting()]
    points = sum(len(entry.get("metrics", ())) for entry in entries)
    is_whole = False
    try:
        deliver(journal)
        is_whole = True
    except store.StoreAway:
        raise
    except EnvironmentFault as fault:
        return Delivered(journal.name, REFUSED, folder=place, why=fault.found)
    finally:
        journal.close(remove=is_whole)
    files, run = sum("file" in entry for entry in entries), journal.state.get("run", "")
    return Delivered(journal.name, DELIVERED, points, files, run, place)
