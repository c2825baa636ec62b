"""Reading params.yaml, with every fault named by key and line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.config.base import POLICY_GRADIENT_METHODS, Section
from components.config.params import Params
from components.errors import ConfigError


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: absent, not YAML, or any key unknown, missing, of a wrong type or in contradiction; every
            fault is named by its dotted key.
    """
    try:
        content = YAML(typ="safe").load(path)  # the parser that DVC uses, so both read 1e-4 as a number
        written = YAML().load(path)  # and the places of its keys
    except FileNotFoundError as fault:
        raise ConfigError(
            "the params file is missing",
            where=str(path),
            expected="a YAML file",
            found="nothing",
            do="run from the root of the repository, or restore it with `git checkout params.yaml`",
        ) from fault
    except (YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(
            "the params file is not YAML",
            where=str(path),
            expected="YAML",
            found=" ".join(str(fault).split()),
            do="mend the line",
        ) from fault
    return _checked(content, str(path), written)


def parse_params(content: Any, where: str) -> Params:
    """Check params that were already read; `where` names their source in errors."""
    return _checked(content, where, None)


def _checked(content: Any, where: str, written: Any) -> Params:
    """The params as types; `written`: the same content with the lines of its keys, or None."""
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        faults = _once(invalid.errors(), written)
        lines = [_line(_place(fault), written) for fault in faults]
        keys = [_key(fault) or "top level" for fault in faults]
        raise ConfigError(
            "the params are not valid",
            where=where + ": " + ", ".join(f"{k} (line {n})" if n else k for k, n in zip(keys, lines, strict=True)),
            expected="; ".join(_rule(fault) for fault in faults),
            found="; ".join(_found(fault) for fault in faults),
            do="mend these keys; the shipped params.yaml shows every key",
        ) from invalid


def _once(faults: list[Any], written: Any) -> list[Any]:
    """Without those of values that a method has from `policy_gradient`: they are told there."""
    shared = {(_place(fault)[1:], fault["msg"]) for fault in faults if _place(fault)[0] == "policy_gradient"}
    return [
        fault
        for fault in faults
        if _place(fault)[0] not in POLICY_GRADIENT_METHODS
        or (_place(fault)[1:], fault["msg"]) not in shared
        or _line(_place(fault), written)
    ]


def _place(fault: Any) -> tuple[str, ...]:
    return tuple(_key(fault).split("."))


def _line(place: tuple[str, ...], written: Any) -> int | None:
    """The line where a key is written, in the section that it is named with; None where it is not."""
    section = written
    for part in place[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    positions = getattr(getattr(section, "lc", None), "data", None) or {}
    return positions[place[-1]][0] + 1 if place and place[-1] in positions else None


def _key(fault: Any) -> str:
    named = [fault["ctx"]["key"]] if fault["type"] == "contradiction" else []
    return ".".join(str(part) for part in [*fault["loc"], *named])


def _rule(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys_beside(fault["loc"]), n=1)
        return f"{'.'.join(map(str, [*fault['loc'][:-1], *near]))}, the nearest key" if near else "a key that exists"
    if fault["type"] == "missing":
        return f"a value for {_key(fault)}"
    return str(fault["msg"])


def _keys_beside(place: tuple[Any, ...]) -> list[str]:
    """The names that the section of a key has; none where the section is not one model's."""
    section: Any = Params
    for part in place[:-1]:
        field = section.model_fields.get(part)
        annotation = field.annotation if field else None
        parts = (annotation, *get_args(annotation))  # a method's section may be absent, and is a union with None
        section = next((part for part in parts if isinstance(part, type) and issubclass(part, Section)), None)
        if section is None:
            return []
    return list(section.model_fields)


def _found(fault: Any) -> str:
    if fault["type"] == "missing":
        return "no such key"
    if fault["type"] == "extra_forbidden":
        return _key(fault)
    if isinstance(fault["input"], dict):
        return "this combination"
    return repr(fault["input"])[:80]
