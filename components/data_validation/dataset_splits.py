"""What the library `datasets` has loaded, from a folder or the hub: a file a split, and whose rows are held out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data_validation.reading import RawFile, Row, Source
from components.data_validation.tables import rows_of_table, unreadable

if TYPE_CHECKING:
    from datasets import Dataset

# Names as people have them: validation, val, test_prefs, dev[:10%], ...
_OURS = {
    "train": re.compile(r"train(ing)?(?![a-z])"),
    "validation": re.compile(r"(val|valid|validation|dev|eval|evaluation)(?![a-z])"),
    "test": re.compile(r"test(?![a-z])"),
}


def read_datasets_folder(path: Path, name: str) -> list[RawFile]:
    """The rows of each split that `save_to_disk` wrote.

    Args:
        name: of the folder, for people.

    Raises:
        DataError: `datasets` cannot load it, or a column holds what no JSON can.
    """
    from datasets import Dataset, load_from_disk

    try:
        loaded: Any = load_from_disk(str(path), keep_in_memory=False)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        found = " ".join(str(fault).split())[:200]
        raise unreadable(path, "a folder that datasets' save_to_disk wrote", found, "save it anew") from fault
    if isinstance(loaded, Dataset):
        return [raw_of(loaded, path, name, "datasets folder")]
    raws = {split: raw_of(rows, path / split, f"{name}/{split}", "datasets folder") for split, rows in loaded.items()}
    tell_splits(raws)
    return list(raws.values())


def raw_of(dataset: Dataset, path: Path, file: str, kind: str) -> RawFile:
    """The rows of one split.

    Raises:
        DataError: a column holds what no JSON can.
    """
    table: Any = dataset.with_format("arrow")[:]
    rows, numbers = rows_of_table(table, path)
    return RawFile(path.as_posix(), rows, numbers, [file] * len(rows), [], (Source(file, kind, "", len(rows)),))


def tell_splits(raws: Mapping[str, RawFile]) -> None:
    """Write into each row which of our splits its data set puts it in, where that has more than one of them.

    A split of another name is for training. Rows that have a column `split` already keep it.

    Args:
        raws: the rows of each split, by its name.
    """
    ours = {name: our_split(name) for name in raws}
    if len({split for split in ours.values() if split}) < 2 or _have_splits(raw.rows for raw in raws.values()):
        return
    for name, raw in raws.items():
        for row in raw.rows:
            row["split"] = ours[name] or "train"


def our_split(name: str) -> str | None:
    """train, validation or test, as a name begins; None of any other."""
    return next((split for split, pattern in _OURS.items() if pattern.match(name.lower())), None)


def _have_splits(files: Iterable[list[Row]]) -> bool:
    return any("split" in row for rows in files for row in rows)
