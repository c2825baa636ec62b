from __future__ import annotations

from pathlib import Path

import pytest

from components.data_validation.reading import CUT_OFF, parse_lines, read_tolerantly


def test_rows_keep_their_line_numbers_over_blank_and_bad_rows() -> None:
    raw = parse_lines(b'{"a": 1}\n\n{"a": \r\n{"a": 2}\r\n[1]\n', "data/x.jsonl")
    assert raw.rows == [{"a": 1}, {"a": 2}]
    assert raw.numbers == [1, 4]
    assert [(bad.number, str(bad.fault), bad.content) for bad in raw.bad_rows] == [
        (3, "the line is not JSON", '{"a": '),
        (5, "the line is not a JSON object", "[1]"),
    ]
    assert raw.size == 4


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"a": "\xff"}', "the line is not UTF-8"),
        (b'{"a": "\\ud800"}', "the line has half of a surrogate pair"),
        (b'{"a": NaN}', "the line is not JSON"),
        (b'{"a": 1e999}', "the line is not JSON"),
        (b'{"a": 1} {"a": 2}', "the line is not JSON"),
        (b"[" * 100_000, "the line is not JSON"),
        (b"null", "the line is not a JSON object"),
    ],
)
def test_a_line_that_could_not_be_written_again_is_no_row(line: bytes, fault: str) -> None:
    raw = parse_lines(line, "data/x.jsonl")
    assert raw.rows == []
    assert [str(bad.fault) for bad in raw.bad_rows] == [fault]


@pytest.mark.parametrize("end", [b'{"a', b'{"a": ', b'{"a": {"b": 1}', b'{"a": "\xc3', b'{"a": [1, -'])
def test_a_last_line_that_lacks_its_end_is_no_other_fault(end: bytes) -> None:
    raw = parse_lines(b'{"a": 0}\n' + end, "data/x.jsonl")
    assert raw.rows == [{"a": 0}]
    assert [bad.fault for bad in raw.bad_rows] == [CUT_OFF]
    (bad,) = parse_lines(end + b"\n", "data/x.jsonl").bad_rows  # which is a line of its own
    assert bad.fault != CUT_OFF


def test_a_whole_surrogate_pair_is_sound() -> None:
    assert parse_lines(b'{"a": "\\ud83d\\ude00"}', "data/x.jsonl").rows == [{"a": "😀"}]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n \n")
    assert read_tolerantly(tmp_path / "x.jsonl").size == 0


@pytest.mark.parametrize("content", [b'{"a": 1}\n{"a": 2}\n', b"\n", b'{"a": 1}'])
def test_a_byte_order_mark_is_no_part_of_the_first_row(content: bytes) -> None:
    marked = parse_lines(b"\xef\xbb\xbf" + content, "data/x.jsonl")
    assert marked == parse_lines(content, "data/x.jsonl")
    assert parse_lines(content + b"\n\xef\xbb\xbf" + content, "x").bad_rows == []  # two such files, joined
