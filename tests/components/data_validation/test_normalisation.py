from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data_validation.normalisation import (
    clipped,
    has_encoding_fault,
    length_in_words,
    prompt_key,
    visible,
)


@pytest.mark.parametrize(
    "original",
    ["café", "don’t", "fûr", "5 £", "a – b", "“quoted”", "naïve", "😀", "Größe", "FÜR"],
)
def test_utf8_read_as_windows_1252_is_found(original: str) -> None:
    # Bytes that Windows-1252 leaves undefined are read as Latin-1, as browsers and most tools do.
    misread = "".join(_as_windows_1252(byte) for byte in original.encode("utf-8"))
    assert misread != original
    assert has_encoding_fault(misread)
    assert not has_encoding_fault(original)


def _as_windows_1252(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return bytes([byte]).decode("latin-1")


@pytest.mark.parametrize("broken", ["a\ufffdb", "a\x00b", "a\x1bb", "a\x7fb", "a\x85b", "a\ud800b", "a\ufffeb"])
def test_characters_that_no_text_has_are_found(broken: str) -> None:
    assert has_encoding_fault(broken)


@pytest.mark.parametrize(
    "sound",
    [
        "tab\tand\r\nline",
        "«LIBERTÉ»",
        "\u201cMA\u00c7\u00c3\u201d",  # Portuguese for apple in capitals, in curly quotation marks
        "SÃO PAULO",
        "ÂGE",
        "你好，世界",
        "مرحبا",
        "👩\u200d🔧",
        "zero\u200bwidth",
        "10\u00a0°C",
    ],
)
def test_real_writing_is_sound(sound: str) -> None:
    assert not has_encoding_fault(sound)


def test_a_prompt_is_the_same_in_other_case_space_and_composition() -> None:
    assert prompt_key(" Where is the\n CAFÉ ?") == prompt_key("where  is the cafe\u0301 ?") == "where is the café ?"
    assert prompt_key("a b") != prompt_key("ab")


def test_length_counts_what_white_space_separates() -> None:
    assert length_in_words(" one two\n\tthree . ") == 4
    assert length_in_words("") == 0


def test_clipping_keeps_one_line_within_the_limit() -> None:
    assert clipped("a\nb", 3) == "a b"
    assert clipped("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    "twin",
    [" cafe\u0301 au lait", "caf\u00e9 au lait\n", "caf\u00e9 \u200bau lait", "\ufeffcaf\u00e9 au l\u00adait\ufe0f"],
)
def test_a_reader_sees_no_difference(twin: str) -> None:
    assert visible(twin) == visible("caf\u00e9 au lait")
    assert prompt_key(twin) == prompt_key("caf\u00e9 au lait")


@pytest.mark.parametrize("other", ["Caf\u00e9", "cafe", "caf\u00e9 .", "ca f\u00e9"])
def test_a_reader_sees_a_difference(other: str) -> None:
    assert visible(other) != visible("caf\u00e9")


@pytest.mark.parametrize("nothing", ["", " \n", "\u200b\u200d", "\ufeff \u2060", "\u3164", "\u2800", "\u00ad"])
def test_a_reader_sees_nothing(nothing: str) -> None:
    assert visible(nothing) == ""


BROKEN = "\x00\x0b\x7f\x85\x93\ufffd\ud800"
MARKS = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026"
MORE = "\u00e9\u0301\u00a0\u2012\u200b"


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aBe \t\n\r" + BROKEN + MARKS + MORE)))
def test_the_quick_look_says_what_a_close_one_does(text: str) -> None:
    """A close look: all of Unicode's composition, what is invisible here, what is broken here."""
    seen = unicodedata.normalize("NFC", text.replace("\u200b", "")).strip()
    assert visible(text) == seen
    if any(character in BROKEN for character in text):
        assert has_encoding_fault(text)
    elif not any(
        character in "\u00e9\u0301\u00a0" for character in text
    ):  # of these ftfy makes words of other readings
        assert not has_encoding_fault(text)
