"""When two texts count as the same, what of a text is seen, how long a text is, and when its characters are broken."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from ftfy.badness import is_bad

# Controls that no text needs (tab, line feed and carriage return stay), the replacement character, lone
# surrogates, and code points that Unicode keeps from being characters.
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# What most texts are made of: ASCII, typographic quotes, dashes and the ellipsis. Among these characters alone there
# is neither a fault of encoding (each of ftfy's patterns has a character beyond them) nor anything invisible or to
# compose: most texts need no closer look, which would be the slow part of reading many.
_USUAL_ASCII = bytes((0x09, 0x0A, 0x0D, *range(0x20, 0x7F)))
_USUAL_MARKS = re.compile(b"(?:\xe2\x80[\x93\x94\x98\x99\x9c\x9d\xa6])*")  # U+2013, 14, 18, 19, 1C, 1D and 26 in UTF-8

# A word in capitals that ends in Ã or Â, at the end of a quotation: "MAÇÃ”" is Portuguese. ftfy takes the last two
# for one letter that was misread, so they are shown to it apart.
_CLOSED_QUOTATION = re.compile("(?<=[A-Z\u00c0-\u00de][\u00c2\u00c3])(?=[\u00bb\u2018-\u201e\u2039\u203a])")

# What shows nothing: Unicode's Default_Ignorable_Code_Point (zero-width characters, joiners, marks of direction,
# variation selectors, fillers, tags), and the braille pattern without dots.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def has_encoding_fault(text: str) -> bool:
    """Whether a text holds characters that only a fault of encoding puts there.

    U+FFFD, control characters, lone surrogates, non-characters, and UTF-8 decoded as another encoding ("cafÃ©" for
    "café"): ftfy's heuristic for the last.
    """
    if _is_usual(text):
        return False
    return _BROKEN.search(text) is not None or is_bad(_CLOSED_QUOTATION.sub(" ", text))


def visible(text: str) -> str:
    """What a reader sees of a text: composed (NFC), without invisible characters, without space at either end."""
    if text.isascii() or _is_usual(text):
        return text.strip()
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()


def _is_usual(text: str) -> bool:
    """Whether a text has usual characters alone, seen in its bytes: a search in characters takes five times as long."""
    others = text.encode("utf-8", "surrogatepass").translate(None, _USUAL_ASCII)
    return not others or _USUAL_MARKS.fullmatch(others) is not None


def prompt_key(prompt: str) -> str:
    """The identity of a prompt: spellings that differ in case, space, composition or the invisible are the same."""
    return " ".join(visible(prompt).casefold().split())


def fingerprint(*texts: str) -> bytes:
    """What stands for texts where only their being equal counts: 16 bytes in place of as many as they have."""
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def length_in_words(text: str) -> int:
    """Length in words, which are whatever white space separates."""
    return len(text.split())


def clipped(text: str, characters: int) -> str:
    """The start of a text in one line, with an ellipsis where something was left out."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
