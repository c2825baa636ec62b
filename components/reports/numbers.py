"""Numbers and names as all pages show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def signed(value: float, decimals: int) -> str:
    """A number with its sign, a true minus, and no minus before zero."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.replace("-", "+")


def unsigned(value: float, decimals: int) -> str:
    """A number with a true minus, and none before zero."""
    return signed(value, decimals).removeprefix("+")


def bounds(interval: Mapping[str, float], decimals: int) -> str:
    """An interval as [low, high]."""
    return f"[{unsigned(interval['low'], decimals)}, {unsigned(interval['high'], decimals)}]"


def number(value: Any) -> str:
    """A plain value for a reader: thin spaces in large integers, three decimals of a fraction, text as it is."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "\N{EN DASH}"}[value]
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")
    return unsigned(value, 3) if isinstance(value, float) else exact(value)


def percent(share: float) -> str:
    """A share of one in percent, to a tenth."""
    return f"{unsigned(100 * share, 1)} %"


def exact(value: Any) -> str:
    """A plain value as it was written: params are shown to the last digit."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def words(name: str) -> str:
    """A name in code as words."""
    text = name.replace("_", " ").replace(".", " \N{MIDDLE DOT} ")
    return text[:1].upper() + text[1:]


FILTERS = {each.__name__: each for each in (signed, unsigned, bounds, number, percent, exact, words)}
