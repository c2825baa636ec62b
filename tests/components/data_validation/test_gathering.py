"""A folder of raw files, whatever their names: roles, column map, ids and sources, and where each row comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.data_validation.gathering import read_raw_files
from components.errors import ConfigError, DataError

Row = dict[str, Any]
DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def write(folder: Path, **files: list[Row]) -> None:
    for stem, rows in files.items():
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def pair(prompt: str, number: int = 0, **further: object) -> Row:
    return {"prompt": prompt, "chosen": f"good {number}", "rejected": f"bad {number}", **further}


def test_preferences_alone_give_the_prompts(tmp_path: Path) -> None:
    write(tmp_path, mine=[pair("Why?", 1, level=1, seen=1), pair("Who?", level=2), pair("why? ", 2, level=1, seen=2)])
    raw = read_raw_files(tmp_path, {})
    assert list(raw) == ["prompts", "comparisons"]
    prompts = raw["prompts"]
    assert [{name: row[name] for name in row if name != "id"} for row in prompts.rows] == [
        {"prompt": "Why?", "level": 1},
        {"prompt": "Who?", "level": 2},
    ]
    assert (prompts.numbers, prompts.files, prompts.derived_from) == ([1, 2], ["mine.jsonl"] * 2, "comparisons")
    assert raw["comparisons"].rows[0]["source"] == "mine"


def test_demonstrations_alone_give_the_prompts(tmp_path: Path) -> None:
    write(tmp_path, mine=[{"prompt": "Why?", "response": "So.", "answer": "42", "split": "test"}])
    raw = read_raw_files(tmp_path, {})
    assert list(raw) == ["prompts", "demonstrations"]
    (row,) = raw["prompts"].rows
    assert row | {"id": ""} == {"id": "", "prompt": "Why?", "answer": "42", "split": "test"}


def test_a_split_that_is_none_of_ours_is_no_prompts(tmp_path: Path) -> None:
    write(tmp_path, mine=[pair("Why?", split="train_prefs")])
    raw = read_raw_files(tmp_path, {})
    assert "split" not in raw["prompts"].rows[0]
    assert raw["comparisons"].rows[0]["split"] == "train_prefs"


def test_files_of_one_role_are_joined_and_rows_know_their_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, a=[pair("Why?", id=0), pair("Who?", id=1)])
    write(tmp_path / "deep", b=[pair("How?", id=1, source="web"), {"prompt": 1}])
    (tmp_path / "deep" / "b.jsonl").open("a").write("no row\n")
    comparisons = read_raw_files(tmp_path, {})["comparisons"]
    assert [row["id"] for row in comparisons.rows[:3]] == ["0", "1", "deep/b.jsonl/1"]
    assert [row.get("source") for row in comparisons.rows] == ["a", "a", "web", "b"]
    assert comparisons.files == ["a.jsonl", "a.jsonl", "deep/b.jsonl", "deep/b.jsonl"]
    assert comparisons.numbers == [1, 2, 1, 2]
    assert [(bad.file, bad.number) for bad in comparisons.bad_rows] == [("deep/b.jsonl", 3)]
    assert [(source.file, source.rows) for source in comparisons.sources] == [("a.jsonl", 2), ("deep/b.jsonl", 3)]


def test_made_ids_depend_on_the_content_alone(tmp_path: Path) -> None:
    rows = [pair("Why?"), pair("Who?"), pair("Why?")]
    write(tmp_path, mine=rows)
    ids = [row["id"] for row in read_raw_files(tmp_path, {})["comparisons"].rows]
    assert ids[2] == f"{ids[0]}-2" and len(set(ids)) == 3
    (tmp_path / "mine.jsonl").unlink()
    write(tmp_path, other=list(reversed(rows)))
    assert [row["id"] for row in read_raw_files(tmp_path, {})["comparisons"].rows][:2] == ids[:2]


def test_other_names_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("question,better,worse,extra\nWhy?,So.,No.,x\n")
    write(tmp_path, more=[pair("Who?")])
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    raw = read_raw_files(tmp_path, columns)["comparisons"]
    assert raw.rows[0] | {"id": ""} == {
        "id": "", "prompt": "Why?", "chosen": "So.", "rejected": "No.", "extra": "x", "source": "mine",
    }  # fmt: skip
    assert raw.numbers == [2, 1]
    with pytest.raises(DataError, match="question"):
        read_raw_files(tmp_path, {})


def test_a_map_that_names_nothing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, mine=[{"question": "Why?", "prompt": "a title", "chosen": "a", "rejected": "b"}])
    with pytest.raises(ConfigError, match="names nothing") as caught:
        read_raw_files(tmp_path, {"chosen": "better"})
    assert caught.value.where == "data.columns.chosen"
    assert "chosen, prompt, question, rejected" in caught.value.expected
    with pytest.raises(ConfigError, match="twice") as caught:
        read_raw_files(tmp_path, {"prompt": "question"})
    assert "data.columns.prompt: question" in caught.value.where
    swapped = read_raw_files(tmp_path, {"prompt": "question", "title": "prompt"})["comparisons"].rows[0]
    assert (swapped["prompt"], swapped["title"]) == ("Why?", "a title")


def test_files_without_a_usable_row_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    (tmp_path / "b.jsonl").write_text("hello\nworld\n")
    with pytest.raises(DataError) as caught:
        read_raw_files(tmp_path, {})
    assert caught.value.where == f"{tmp_path}/a.jsonl; {tmp_path}/b.jsonl"
    assert caught.value.found == "an empty file; 2 lines, none of them a row; line 1: the line is not JSON"
    (tmp_path / "a.jsonl").unlink()
    write(tmp_path, b=[{"prompt": "Why?", "completion": "So.", "label": True}])
    with pytest.raises(DataError, match="no usable row") as caught:
        read_raw_files(tmp_path, {})
    assert caught.value.found == "1 rows: no answer of the other label to its prompt"
    write(tmp_path, b=[{"chosen": "Yes", "rejected": "No"}])
    with pytest.raises(DataError, match="row 1: chosen and rejected do not share the prompt"):
        read_raw_files(tmp_path, {})


@pytest.mark.skipif(not DATA.is_dir(), reason="the human data is not here")
def test_the_dialogues_of_real_preferences_are_parted(tmp_path: Path) -> None:
    """7,201 prompts that are dialogues: as many turns as there are marks of turns."""
    (tmp_path / "hh.jsonl").write_bytes((DATA / "pref_hh_train.jsonl").read_bytes())
    raw = read_raw_files(tmp_path, {})["comparisons"]
    assert raw.bad_rows == []
    rows = [json.loads(line) for line in (DATA / "pref_hh_train.jsonl").open()]
    turns = [row["prompt"].count("\n\nHuman:") + row["prompt"].count("\n\nAssistant:") for row in rows]
    assert [len(row.get("messages", [0])) for row in raw.rows] == turns
    # The same as whole dialogues.
    whole = [{side: f"\n\n{row['prompt']} {row[side]}" for side in ("chosen", "rejected")} for row in rows]
    write(tmp_path, hh=whole)
    again = read_raw_files(tmp_path, {})["comparisons"]
    assert [row["prompt"] for row in again.rows] == [row["prompt"] for row in raw.rows]
    assert [row["chosen"] for row in again.rows] == [row["chosen"].strip() for row in rows]
