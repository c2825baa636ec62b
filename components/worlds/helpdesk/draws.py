"""How the generators draw: fairly, of a fitting length, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import TypeVar

from components.worlds.helpdesk.writers import Writer

T = TypeVar("T")


def unseen(
    draw: Callable[[], str], seen: set[str], words: range, context: str = "", same: Callable[[str], str] = str
) -> str:
    """The first draw of a fitting length that is new in its context; `same` maps texts that count as one to one."""
    while True:
        text = draw()
        key = context + same(text)
        if len(text.split()) in words and key not in seen:
            seen.add(key)
            return text


def in_turns(items: list[T], rng: Random) -> Iterator[T]:
    """The items in random order, all of them before any comes again."""
    while True:
        yield from rng.sample(items, len(items))


def pick(writers: dict[str, tuple[float, Writer]], rng: Random) -> tuple[str, Writer]:
    """A writer and its name, as often as its share says."""
    name = rng.choices(list(writers), [share for share, _ in writers.values()])[0]
    return name, writers[name][1]
