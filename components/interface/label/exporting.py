"""Labels of the page in the forms of tools that people have labels in: their imports take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from components.artifacts import write_json
from components.data.formats.argilla import record_of_label
from components.data.formats.base import Row
from components.data.formats.label_studio import task_of_label
from components.data.formats.labels import is_label
from components.data_validation.reading import CUT_OFF, read_tolerantly
from components.errors import ConfigError, DataError

FORMS: dict[str, Callable[[Row], Row]] = {"label-studio": task_of_label, "argilla": record_of_label}


class Exported(NamedTuple):
    """What was written: how many labels, and whether the file of labels ends within a line that was left out."""

    labels: int
    cut_off: bool


def export_labels(source: Path, target: Path, form: str) -> Exported:
    """Write all labels of a file, one task or record each, as a JSON array.

    Args:
        form: one of `FORMS`.

    Raises:
        ConfigError: there is no file of labels, or the new file is there already.
        DataError: it has a line that is no label, or none that is one.
    """
    if not source.is_file():
        expected = "the file that `proximal label` writes"
        raise ConfigError("there are no labels", where=str(source), expected=expected, found="no such file")
    if target.exists():
        do = "name another, or delete it"
        raise ConfigError("a file of this name is there", where=str(target), expected="a new file", found="one", do=do)
    raw = read_tolerantly(source)
    broken = [bad.number for bad in raw.bad_rows if bad.fault is not CUT_OFF]
    broken += [number for row, number in zip(raw.rows, raw.numbers, strict=True) if not is_label(row)]
    if broken or not raw.rows:
        raise DataError(
            "these are no labels",
            where=str(source),
            expected="what `proximal label` wrote, one label a line",
            found=f"line {min(broken)} is none" if broken else "not one",
            do="export the file of labels itself: what `proximal data add` made of it says nothing of ties",
        )
    write_json(target, [FORMS[form](row) for row in raw.rows])
    return Exported(len(raw.rows), cut_off=bool(raw.bad_rows))
