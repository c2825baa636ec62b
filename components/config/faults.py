"""What pydantic finds wrong in params, as findings for people: one a fault, by key and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.config.base import POLICY_GRADIENT_METHODS
from components.config.keys import did_you_mean


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        key: dotted.
        line: of params.yaml, where the key is written; None where it is not, or nobody knows.
        rule: what was expected.
        found: what was there.
    """

    key: str
    line: int | None
    rule: str
    found: str

    def __str__(self) -> str:
        return f"{self.key} (line {self.line})" if self.line else self.key


def findings(faults: list[Any], written: Any) -> list[Finding]:
    """Each fault once, by the place where it is written.

    Args:
        faults: pydantic's.
        written: the same content as ruamel reads it, which knows lines; None where it came from no file.
    """
    told = {fault["loc"][1:]: fault["msg"] for fault in faults if fault["loc"][:1] == ("policy_gradient",)}
    found: dict[tuple[object, ...], Finding] = {}
    for fault in faults:
        key = _key(fault)
        line = _line(key.split("."), written)
        section, *rest = fault["loc"] or ("",)
        if section in POLICY_GRADIENT_METHODS and not line and told.get(tuple(rest)) == fault["msg"]:
            continue  # a value from policy_gradient, told there
        # One line is one fault, however many sections take its values by a YAML merge.
        same = (line, fault["msg"]) if line else (key, fault["msg"])
        found.setdefault(same, Finding(key or "top level", line, _rule(fault), _found(fault)))
    return list(found.values())


def _key(fault: Any) -> str:
    named = [fault["ctx"]["key"]] if fault["type"] == "contradiction" else []
    place = [*fault["loc"]]
    if place[:1] == ["generation"]:
        del place[1:2]  # pydantic puts the engine between the section and its key
    return ".".join(str(part) for part in [*place, *named])


def _line(place: list[str], written: Any) -> int | None:
    """The line where a key is written, in the section that it is named with or one merged into it."""
    section = written
    for part in place[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    for part in (section, *(getattr(section, "merge", None) or ())):
        positions = getattr(getattr(part, "lc", None), "data", None) or {}
        if place[-1] in positions:
            return int(positions[place[-1]][0]) + 1
    return None


def _rule(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return f"a key that exists; {did_you_mean(_key(fault))}".removesuffix("; ")
    if fault["type"] == "missing":
        return f"a value for {_key(fault)}"
    rule = fault["ctx"]["rule"] if fault["type"] == "contradiction" else fault["msg"]
    return str(rule).removeprefix("Input should be ")


def _found(fault: Any) -> str:
    if fault["type"] == "missing":
        return "no such key"
    if fault["type"] == "extra_forbidden":
        return _key(fault)
    return str(fault["ctx"]["found"]) if fault["type"] == "contradiction" else repr(fault["input"])[:80]
