"""Data sets of the Hugging Face hub, by the library `datasets`: files and their metadata, never code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.data_validation.dataset_splits import raw_of, tell_splits
from components.data_validation.reading import RawFile
from components.errors import DataError

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")
_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt")


def is_name(text: str) -> bool:
    """Whether a text may name a data set of the hub, OWNER/NAME or OWNER/NAME:CONFIG, and not a file."""
    return _NAME.fullmatch(text) is not None and not text.lower().endswith(_FILES)


def read_from_hub(text: str, revision: str | None, splits: Sequence[str]) -> list[RawFile]:
    """The splits of a data set, each as a file: all, or those that are named.

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
    from datasets import load_dataset

    try:
        loaded: Any = load_dataset(match["name"], match["config"], revision=revision, split=list(splits) or None)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as fault:
        raise DataError(
            "a data set of the hub cannot be loaded",
            where=f"{text} at {revision}",
            expected="OWNER/NAME or OWNER/NAME:CONFIG, a revision that it has, and the net",
            found=" ".join(str(fault).split())[:400],
            do="mend the name, the revision or --split; or bring its files here and import those",
        ) from fault
    name = match["name"].partition("/")[2]
    named = dict(zip(splits, loaded, strict=True)) if splits else loaded
    raws = {
        split: raw_of(rows, Path(f"{text} {split}"), f"{name}-{split}", f"hub, {revision}")
        for split, rows in named.items()
    }
    tell_splits(raws)
    return list(raws.values())
