"""Data sets of the Hugging Face hub, by the library `datasets`: files and their metadata, never code."""

from __future__ import annotations

import re
from pathlib import Path

from components.data_validation.reading import RawFile, Source
from components.data_validation.tables import rows_of_dataset
from components.errors import DataError

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")
_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt")


def is_name(text: str) -> bool:
    """Whether a text may name a data set of the hub, OWNER/NAME or OWNER/NAME:CONFIG, and not a file."""
    return _NAME.fullmatch(text) is not None and not text.lower().endswith(_FILES)


def read_from_hub(text: str, revision: str | None, split: str | None) -> list[RawFile]:
    """The splits of a data set, each as a file; `split` for one alone.

    Raises:
        DataError: no revision is named (the default one may be another tomorrow), or `datasets` cannot load it.
    """
    match = _NAME.fullmatch(text)
    assert match is not None
    if revision is None:
        raise DataError(
            "a data set of the hub has no revision",
            where=text,
            expected="--revision with a commit or tag of the data set, so that the same rows can be had again",
            found="none",
            do="its page on the hub, Files and versions, names them",
        )
    from datasets import Dataset, load_dataset

    try:
        loaded = load_dataset(match["name"], match["config"], revision=revision, split=split)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as fault:
        raise DataError(
            "a data set of the hub cannot be loaded",
            where=f"{text} at {revision}",
            expected="OWNER/NAME or OWNER/NAME:CONFIG, a revision that it has, and the net",
            found=" ".join(str(fault).split())[:400],
            do="mend the name, the revision or --split; or bring its files here and import those",
        ) from fault
    name = match["name"].partition("/")[2]
    splits = {split or "": loaded} if isinstance(loaded, Dataset) else loaded
    raws = []
    for part, rows in splits.items():
        made, numbers = rows_of_dataset(rows, Path(text))
        file = f"{name}-{part}".removesuffix("-")
        source = Source(file, f"hub, {revision}", "", len(made))
        raws.append(RawFile(f"{text} {part}".strip(), made, numbers, [file] * len(made), [], (source,)))
    return raws
