"""Clean rows: what is written is what was read, column by column."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import read_jsonl, write_jsonl
from components.data.rows import Comparison, Demonstration, Prompt, columns_of, read_rows, row_of, write_rows
from components.errors import DataError

ROWS = {
    Prompt: {"id": "p1", "prompt": "Why?", "split": "train", "kind": "known", "raw_row": 3},
    Demonstration: {"id": "d1", "prompt": "Why?", "response": "So.", "source": "expert", "walk": 4, "raw_row": 1},
    Comparison: {
        **{"id": "c1", "prompt": "Why?", "chosen": "So.", "rejected": "No.", "source": "sampled"},
        **{"annotator": "alma", "pair": "q1", "seconds": [1.5, None], "raw_row": 9},
    },
}


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_a_file_that_is_read_and_written_keeps_its_bytes(kind: type, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "before.jsonl", [ROWS[kind]])
    rows = read_rows(tmp_path / "before.jsonl", kind)
    write_rows(tmp_path / "after.jsonl", rows)
    assert (tmp_path / "after.jsonl").read_bytes() == (tmp_path / "before.jsonl").read_bytes()
    assert rows[0].id == ROWS[kind]["id"] and rows[0].extra["raw_row"] == ROWS[kind]["raw_row"]


def test_columns_that_may_be_absent_are_left_absent() -> None:
    plain = {"id": "p", "prompt": "Why?"}
    assert columns_of(row_of(Prompt, plain)) == plain
    assert row_of(Prompt, plain) == Prompt("p", "Why?", split=None, kind=None)


@pytest.mark.parametrize(
    ("kind", "column"),
    [(kind, column) for kind in ROWS for column in kind.required],  # type: ignore[attr-defined]
    ids=str,
)
def test_a_missing_column_is_named_with_its_row(kind: type, column: str, tmp_path: Path) -> None:
    whole = ROWS[kind]
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [whole, {name: value for name, value in whole.items() if name != column}])
    with pytest.raises(DataError, match=rf"(?s)rows\.jsonl, row 2.*no {column}"):
        read_rows(path, kind)
    assert len(read_jsonl(path)) == 2
