"""The same rows in everything that holds rows, by names that say so and by names that do not."""

from __future__ import annotations

import csv
import gzip
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.data_validation.containers import data_files, read_container
from components.data_validation.reading import RawFile
from components.errors import DataError

Row = dict[str, Any]
ROWS: list[Row] = [
    {"prompt": "Why?", "chosen": "Go\nod, é", "rejected": 'B"a"d'},
    {"prompt": "Who?", "chosen": "You", "rejected": "Me", "note": "x"},
]


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(tmp_path: Path, how: str) -> Path:
    path = tmp_path / how
    match how.partition(" ")[0]:
        case "lines.jsonl" | "lines.json":
            path.write_bytes(lines(ROWS))
        case "lines.jsonl.gz" | "gzip.jsonl":
            path.write_bytes(gzip.compress(lines(ROWS)))
        case "array.json" | "array.jsonl":
            path.write_text(json.dumps(ROWS, indent=2))
        case "cells.csv" | "cells.tsv" | "cells.jsonl" | "semicolons.csv":
            with path.open("w", encoding="utf-8-sig", newline="") as file:
                separator = "\t" if how.endswith("tsv") else ";" if how.startswith("semi") else ","
                writer = csv.DictWriter(file, ["prompt", "chosen", "rejected", "note"], delimiter=separator)
                writer.writeheader()
                writer.writerows(ROWS)
        case "table.parquet" | "table.jsonl":
            pd.DataFrame(ROWS).to_parquet(path)
        case "folder":
            from datasets import Dataset

            Dataset.from_list([{"note": None, **row} for row in ROWS]).save_to_disk(str(path))
    return path


HOW = {
    "lines.jsonl": "JSONL",
    "lines.json": "JSONL",
    "lines.jsonl.gz": "JSONL, gzipped",
    "gzip.jsonl": "JSONL, gzipped",
    "array.json": "JSON array",
    "array.jsonl": "JSON array",
    "cells.csv": "CSV",
    "cells.tsv": "TSV",
    "cells.jsonl": "CSV",
    "semicolons.csv": "CSV",
    "table.parquet": "Parquet",
    "table.jsonl": "Parquet",
    "folder": "datasets folder",
}


def only(path: Path) -> RawFile:
    (raw,) = read_container(path, path.name)
    return raw


@pytest.mark.parametrize("how", HOW)
def test_the_same_rows_from_all(tmp_path: Path, how: str) -> None:
    raw = only(written(tmp_path, how))
    assert raw.rows == ROWS
    assert raw.numbers == ([2, 3] if "SV" in HOW[how] else [1, 2])
    assert raw.files == [how, how]
    assert [(source.file, source.kind, source.rows) for source in raw.sources] == [(how, HOW[how], 2)]
    assert raw.bad_rows == []


def test_a_folder_of_splits_is_a_file_each(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{"note": None, **row} for row in ROWS])
    DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(str(tmp_path / "saved"))
    assert list(data_files(tmp_path)) == [tmp_path / "saved"]
    raws = read_container(tmp_path / "saved", "saved")
    assert [(raw.sources[0].file, raw.rows) for raw in raws] == [
        ("saved/train", [row | {"split": "train"} for row in ROWS]),
        ("saved/test", [row | {"split": "test"} for row in ROWS[1:]]),
    ]


def test_messages_of_tables_are_messages(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    frame = pd.DataFrame({"messages": [talk], "prompt": ["[1, 2] is a list"], "scores": [[1.5, 2.0]]})
    frame.to_parquet(tmp_path / "table.parquet")
    frame.to_csv(tmp_path / "python.csv", index=False)  # lists as Python writes them
    pd.DataFrame({name: [json.dumps(frame[name][0]) if name != "prompt" else frame[name][0]] for name in frame}).to_csv(
        tmp_path / "json.csv", index=False
    )
    for name in ("table.parquet", "python.csv", "json.csv"):
        assert only(tmp_path / name).rows == [{"messages": talk, "prompt": "[1, 2] is a list", "scores": [1.5, 2.0]}]


def test_what_json_has_not_is_no_value_or_its_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["a", "b"], "score": [math.nan, 0.5], "day": [date(2026, 11, 28), None]})
    frame.to_parquet(tmp_path / "x.parquet")
    assert only(tmp_path / "x.parquet").rows == [{"prompt": "a", "day": "2026-11-28"}, {"prompt": "b", "score": 0.5}]
    pd.DataFrame({"prompt": ["a"], "image": [b"\x00"]}).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(DataError, match="bytes in column image"):
        only(tmp_path / "y.parquet")


def test_bad_rows_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,note\na,b\nc\nd,e\n")
    (tmp_path / "x.json").write_text('[{"prompt": "a"}, 3, {"prompt": "\\ud800"}]')
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n{"prom\n'))
    assert [(bad.number, bad.content, str(bad.fault)) for bad in only(tmp_path / "x.csv").bad_rows] == [
        (3, "c", "the row has 1 cells, the header 2")
    ]
    assert [(bad.number, str(bad.fault)) for bad in only(tmp_path / "x.json").bad_rows] == [
        (2, "the row is not a JSON object"),
        (3, "the row has half of a surrogate pair"),
    ]
    assert [(bad.number, str(bad.fault)) for bad in only(tmp_path / "x.jsonl.gz").bad_rows] == [
        (2, "the line is not JSON")
    ]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n', mtime=0)[:-9], "cut off or damaged"),
        ("x.parquet", b"PAR1 and no more", "Parquet"),
        ("x.json", b'[{"prompt": "a"}, {"prompt": NaN}]', "NaN is not JSON"),
        ("x.json", b'{\n"rows": []\n}\n', "one JSON object"),
        ("x.csv", "prompt\tnoté\n".encode("utf-16"), "not UTF-8|byte 0xff"),
        ("x.csv", b"prompt,prompt\na,b\n", "prompt"),
        ("x.xlsx", b"PK\x03\x04\x00\x00\x08\x00", "a binary file of another kind"),
    ],
)
def test_what_cannot_be_read_as_a_whole_is_refused(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=found) as caught:
        only(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_documents_and_hidden_files_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (".gitkeep", "README.md", "LICENSE", "a.jsonl", "deep/b.csv", "z.unknown"):
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in data_files(tmp_path)] == [
        "a.jsonl",
        "deep/b.csv",
        "z.unknown",
    ]
