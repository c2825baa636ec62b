"""JSON and rows come back as they were; what is absent or damaged is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from components.artifacts import link_or_copy, read_json, read_jsonl, reading, write_json, write_jsonl
from components.errors import ArtifactError, DataError


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    (tmp_path / "here").write_text("x")
    with tempfile.TemporaryDirectory(dir=other) as elsewhere:
        link_or_copy(str(tmp_path / "here"), f"{elsewhere}/there")
        assert Path(elsewhere, "there").read_text() == "x"
    link_or_copy(str(tmp_path / "here"), str(tmp_path / "there"))
    assert (tmp_path / "there").samefile(tmp_path / "here")
    with pytest.raises(FileNotFoundError):
        link_or_copy(str(tmp_path / "absent"), str(tmp_path / "other"))


def test_json_depends_on_its_content_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, None, "é"]})
    write_json(tmp_path / "b", {"a": [1.5, None, "é"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"}\n")
    assert read_json(tmp_path / "a") == {"a": [1.5, None, "é"], "b": 1}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "file", {"loss": number})
    with pytest.raises(ValueError):
        write_jsonl(tmp_path / "file", [{"loss": number}])
    assert not list(tmp_path.iterdir())


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"text": 'é 日本 "quoted"\nand\u2028more', "n": 1}, {"text": "", "n": None}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 2
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ('{"a": 1}\n\n{"a": 2,}\n', 3, '{"a": 2,}'),
        ('{"a": 1}\n[1, 2]\n', 2, "[1, 2]"),
        ('{"a": 1}\n{"a": "' + "x" * 500, 2, "x" * 60),
        ("7", 1, "7"),
    ],
)
def test_a_bad_line_is_named_and_shown(tmp_path: Path, content: str, line: int, found: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        read_jsonl(tmp_path / "rows.jsonl")
    assert caught.value.where == f"{tmp_path}/rows.jsonl, line {line}"
    assert found in caught.value.found and len(caught.value.found) < 200


def test_what_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        read_jsonl(tmp_path / "nowhere.jsonl")
    with pytest.raises(ArtifactError, match=r"nowhere\.json"):
        read_json(tmp_path / "nowhere.json")
    (tmp_path / "file").write_bytes(b'{"a": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=str(tmp_path / "file")):
        read_jsonl(tmp_path / "file")
    with pytest.raises(ArtifactError, match=str(tmp_path / "file")):
        read_json(tmp_path / "file")
    (tmp_path / "file").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=str(tmp_path / "file")):
        read_json(tmp_path / "file")


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    number = 0.1 + 0.2
    write_json(tmp_path / "file", number)
    assert read_json(tmp_path / "file") == number == json.loads("0.30000000000000004")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("fault", [AttributeError("ours"), RuntimeError("ours")])
def test_a_fault_of_ours_is_not_taken_for_a_damaged_file(fault: Exception) -> None:
    with pytest.raises(type(fault), match="ours"), reading("model", Path("artifacts/sft/policy"), "weights"):
        raise fault


@pytest.mark.parametrize(
    ("place", "made_here"), [("artifacts/sft/policy", True), (".work/x/policy", True), ("/tmp/fetched/policy", False)]
)
def test_only_what_dvc_makes_is_said_to_come_back_by_dvc_repro(place: str, made_here: bool) -> None:
    with pytest.raises(ArtifactError) as caught, reading("model", Path(place), "weights"):
        raise ValueError("broken")
    assert ("dvc repro" in caught.value.do) == made_here and caught.value.where == place
