"""When two texts count as the same, how long a text is, and when its characters are broken."""

from __future__ import annotations

import re
import unicodedata

# Controls that no text needs (tab, line feed and carriage return stay), the replacement character, lone
# surrogates, and code points that Unicode keeps from being characters.
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# UTF-8 that was once read as Windows-1252 ("cafÃ©" for "café", "donâ€™t" for "don’t"): a lead character, then
# what the next byte became. Followers that can also close a quotation do not count after a capital: "MAÇÃ»"
# may be a word and a guillemet.
_LEAD = "[\u00c2\u00c3]"
_FOLLOWER = (
    "[\u00a1-\u00ba\u00bc-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u20ac\u2122]"
)
_CLOSING_FOLLOWER = "[\u00a0\u00bb\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a]"
_CAPITAL = "[A-Z\u00c0-\u00de\u0110]"
_MOJIBAKE = re.compile(
    f"{_LEAD}{_FOLLOWER}|(?<!{_CAPITAL}){_LEAD}{_CLOSING_FOLLOWER}"
    "|\u00e2[\u20ac\u201a\u201e\u2020\u2021\u02c6]|\u00f0\u0178|\u00ef\u00bf\u00bd|\u00ef\u00bb\u00bf"
)


def has_encoding_fault(text: str) -> bool:
    """Whether a text holds characters that only a fault of encoding puts there.

    U+FFFD, control characters, lone surrogates, non-characters, and UTF-8 decoded as Windows-1252.
    """
    return _BROKEN.search(text) is not None or _MOJIBAKE.search(text) is not None


def prompt_key(prompt: str) -> str:
    """The identity of a prompt: spellings that differ in case, space or Unicode composition are the same."""
    return " ".join(unicodedata.normalize("NFC", prompt).casefold().split())


def length_in_words(text: str) -> int:
    """Length in words, which are whatever white space separates."""
    return len(text.split())


def clipped(text: str, characters: int) -> str:
    """The start of a text in one line, with an ellipsis where something was left out."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
