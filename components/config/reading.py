"""Reading params.yaml, with every fault named by key and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.config.faults import findings
from components.config.keys import did_you_mean
from components.config.params import Params
from components.errors import ConfigError


def load_params(path: Path, changes: Mapping[str, Any] | None = None) -> Params:
    """Read and check a params file.

    Args:
        changes: other values for dotted keys, in what is read; the file stays as it is.

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
    if not changes:
        return _checked(content, str(path), written)
    put(content, changes, str(path))
    return parse_params(content, f"{path} with {', '.join(f'{key}={value}' for key, value in changes.items())}")


def parse_params(content: Any, where: str) -> Params:
    """Check params that were already read; `where` names their source in errors."""
    return _checked(content, where, None)


def put(content: Any, changes: Mapping[str, Any], where: str) -> None:
    """Write values at dotted keys into what was read; a section may be given a key that it has not stated.

    Raises:
        ConfigError: there is no such section.
    """
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = content
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(
                "no such key",
                where=f"{where}: {dotted}",
                expected=f"a key that exists; {did_you_mean(dotted)}".removesuffix("; "),
                found=dotted,
                do="`proximal params` prints the keys",
            )
        place[key] = value


def _checked(content: Any, where: str, written: Any) -> Params:
    """The params as types; `written`: the same content with the lines of its keys, or None."""
    try:
        return Params.model_validate(content)
    except ValidationError as invalid:
        found = findings(invalid.errors(), written)
        named = [""] if len(found) == 1 else [f"{finding.key}: " for finding in found]
        raise ConfigError(
            "the params are not valid",
            where=f"{where}: {', '.join(map(str, found))}",
            expected="; ".join(name + finding.rule for name, finding in zip(named, found, strict=True)),
            found="; ".join(name + finding.found for name, finding in zip(named, found, strict=True)),
            do="mend these keys; `proximal params --schema` says what each may be",
        ) from invalid
