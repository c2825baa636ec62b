"""The name of a pipeline's run: its method, what its params change on the committed ones, its seed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.config import METHODS, Params
from components.place import Place

_SHORT = {"learning_rate": "lr", "responses_per_prompt": "responses", "iterations_per_cycle": "iterations"}
_OWN = ("policy_gradient",)  # and the method's section: their keys need no section before them
_SHOWN = 3


def run_name(params: Params, root: Path) -> str:
    """E.g. "ppo lr=1e-4 s1"; without changes, or where nothing is committed, "ppo s1".

    Args:
        root: of the repository, whose params.yaml is held against the one of its last commit.
    """
    changes = _changes(params.method, Place(root).params)
    more = [f"+{len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    return " ".join([params.method, *changes[:_SHOWN], *more, f"s{params.seed}"])


def _changes(method: str, path: Path) -> list[str]:
    command = ["git", "show", f"HEAD:./{path.name}"]
    committed = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    if committed.returncode or not path.exists():
        return []
    try:
        before, now = (_leaves(YAML(typ="safe").load(text)) for text in (committed.stdout, path.read_text("utf-8")))
    except YAMLError:  # of a commit that this one mends
        return []
    aside = {"method", "seed", *(other for other in METHODS if other != method)}
    return [
        f"{_short(key, method)}={_value(value)}"
        for key, value in now.items()
        if before.get(key) != value and key[0] not in aside
    ]


def _leaves(tree: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, Mapping):
        return {above: tree}
    return {key: leaf for name, part in tree.items() for key, leaf in _leaves(part, (*above, str(name))).items()}


def _short(key: tuple[str, ...], method: str) -> str:
    section = () if key[0] in (method, *_OWN) else key[:-1]
    return ".".join((*section, _SHORT.get(key[-1], key[-1])))


def _value(value: Any) -> str:
    """A number in the shorter of its spellings: 1e-4, 0.35, 256."""
    if not isinstance(value, float):
        return str(value)
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    scientific = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return min(f"{value:g}", scientific, key=len)
