"""The file of labels: one line each, on the disk before anybody is told, and one for each pair and annotator."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

from components.disk import disk_faults
from components.errors import DataError
from components.interface.label.pairs import Pair

Verdict = Literal["A", "B", "tie", "skip"]
Row = dict[str, Any]


class Agreement(NamedTuple):
    """Of two labels of one pair by two annotators, how many are equal; skips are no labels, and a tie equals a tie."""

    equal: int
    compared: int

    def __str__(self) -> str:
        if not self.compared:
            return "no pair has been judged by two annotators yet"
        return f"{self.equal / self.compared:.0%} of {self.compared} times that two annotators judged one pair"


class Labels:
    """The labels of one file, which several threads and processes may add to at once.

    Raises:
        DataError: the file has a line that is no label.
        EnvironmentFault: the disk is full, or the folder may not be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._rows: dict[tuple[str, str], Row] = {}
        self._read = 0  # bytes
        with disk_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._caught_up():
            folder = os.open(path.parent, os.O_RDONLY)  # its name is to outlive a power cut, too
            os.fsync(folder)
            os.close(folder)

    def add(self, pair: Pair, annotator: str, verdict: Verdict, why: str = "") -> bool:
        """Write a label, and wait until the disk has it.

        Returns:
            False where this annotator has judged this pair before: the first label stays.
        """
        if verdict not in get_args(Verdict):
            raise ValueError(f"no verdict: {verdict!r}")
        with self._caught_up() as file:
            if (pair.id, annotator) in self._rows:
                return False
            row = label_of(pair, annotator, verdict, why) | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._catch_up(file)
        return True

    def all(self) -> list[Row]:
        """Every label, also those that others have written since."""
        with self._caught_up():
            return list(self._rows.values())

    @contextmanager
    def _caught_up(self) -> Iterator[BinaryIO]:
        with self._thread, disk_faults(self._path), self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            self._catch_up(file)
            yield file

    def _catch_up(self, file: BinaryIO) -> None:
        """Read what has been added; a last line that was cut off while it was written is taken away: none was told."""
        if file.seek(0, os.SEEK_END) < self._read:
            self._read, self._rows = 0, {}  # another file has come in its place
        file.seek(self._read)
        for line in file.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                file.truncate(self._read)
                return
            self._note(line)
            self._read += len(line)

    def _note(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            self._rows.setdefault((row["pair"], row["annotator"]), row)
        except (ValueError, TypeError, KeyError) as fault:
            raise DataError(
                "a line is no label",
                where=f"{self._path}, at byte {self._read}",
                expected="what `proximal label` wrote, with pair and annotator",
                found=line[:80].decode(errors="replace"),
                do="name a new file with --out, or mend the line",
            ) from fault


def label_of(pair: Pair, annotator: str, verdict: Verdict, why: str = "") -> Row:
    """A label as a line of the file, without the time that it was given at."""
    return {
        "pair": pair.id,
        "annotator": annotator,
        "label": verdict,
        "prompt": pair.prompt,
        **({"messages": pair.messages} if pair.messages is not None else {}),
        "shown": [asdict(answer) for answer in pair.shown_to(annotator)],  # as A and B
        **({"why": why} if why else {}),
    }


def agreement(rows: list[Row]) -> Agreement:
    """How often annotators say the same of one pair, whichever answer each of them saw first."""
    by_pair: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["label"] != "skip":
            by_pair[row["pair"]].append(_preferred(row))
    both = [two for said in by_pair.values() for two in combinations(said, 2)]
    return Agreement(sum(first == second for first, second in both), len(both))


def _preferred(row: Row) -> str:
    """The answer's text, which tells it from the other; "" for a tie."""
    return "" if row["label"] == "tie" else str(row["shown"]["AB".index(row["label"])]["text"])
