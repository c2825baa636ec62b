"""The params as a run takes them, and what they may be: `proximal params`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.config import load_params
from components.config.keys import did_you_mean
from components.config.schema import json_schema
from components.errors import ConfigError
from components.place import Place


def print_params(root: Path, key: str | None, as_json: bool) -> None:
    """Print all params of the chosen method, or what stands at one dotted key, of any method.

    Raises:
        ConfigError: no such key.
    """
    params = load_params(Place(root).params)
    found = params.values() if key is None else _at(key, params.model_dump(mode="json"), Place(root).params)
    if as_json:
        print(json.dumps(found, indent=2))
    elif isinstance(found, dict):
        _yaml().dump(found, sys.stdout)
    else:
        print(found if isinstance(found, str) else json.dumps(found))


def print_schema() -> None:
    """Print the JSON Schema of params.yaml."""
    print(json.dumps(json_schema(), indent=2))


def _yaml() -> YAML:
    """As params.yaml is written: a key a line, `null` in letters."""
    yaml = YAML()
    yaml.representer.add_representer(type(None), lambda its, _: its.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _at(key: str, values: Any, file: Path) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            expected = f"a key that exists; {did_you_mean(key)}".removesuffix("; ")
            raise ConfigError(
                "no such key", where=str(file), expected=expected, found=key, do="`proximal params` prints the keys"
            )
        values = values[part]
    return values
