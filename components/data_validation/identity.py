"""Ids and sources of rows that bring none, and ids that several files have."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from components.data_validation.reading import Row
from components.data_validation.schemas import FileName

_TEXTS = ("prompt", "response", "chosen", "rejected")
_NAMES = ("id", "source", "annotator", "pair")  # numbers are as good as texts there
_BYTES = 8  # of a digest: of 170,000 rows, the odds that two are the same by chance are one in a billion


def identify(rows: Iterable[Row], role: FileName, stem: str) -> None:
    """Give each row an id of its content where it has none, and the file's name as its source.

    Numbers become texts, and so do lists of texts: some data sets name several sources.

    A repeated content is told by its number, so that it is one fault (a repeated row) and not two.
    """
    seen: dict[str, int] = {}
    for row in rows:
        for name in _NAMES:
            value = row.get(name)
            if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
                row[name] = ", ".join(value)
            if value is not None and not isinstance(value, str | bool) and isinstance(value, int | float):
                row[name] = str(value)
        if row.get("id") is None:
            made = content_id(row)
            seen[made] = seen.get(made, 0) + 1
            row["id"] = made if seen[made] == 1 else f"{made}-{seen[made]}"
        if role != "prompts" and row.get("source") is None:
            row["source"] = stem


def content_id(row: Row) -> str:
    """A digest of a row's texts, the same wherever the row stands."""
    texts = "\x1f".join(str(row.get(name, "")) for name in _TEXTS)
    return blake2b(texts.encode("utf-8", errors="surrogatepass"), digest_size=_BYTES).hexdigest()


def tell_apart(files: Iterable[tuple[str, list[Row]]]) -> None:
    """Put a file's name before the ids that an earlier file has, too: several count from 0, say.

    Args:
        files: names and rows, which are changed in place.
    """
    earlier: set[str] = set()
    for file, rows in files:
        taken = earlier.intersection(row["id"] for row in rows if isinstance(row["id"], str))
        for row in rows:
            if isinstance(row["id"], str) and row["id"] in taken:
                row["id"] = f"{file}/{row['id']}"
        earlier.update(row["id"] for row in rows if isinstance(row["id"], str))
