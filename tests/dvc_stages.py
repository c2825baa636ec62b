"""dvc.yaml and the params that its templates name, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
# Stages whose package is another's.
PACKAGE_OF = {"judge": "reward_model"}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(ROOT / name)
    return content


PARAMS = load("params.yaml")
ALIGNMENT = [f"alignment@{cycle}" for cycle in PARAMS["cycles"]]
STAGES = {name: stage.get("do", stage) for name, stage in load("dvc.yaml")["stages"].items()}


def package(stage: str) -> str:
    return f"components.{PACKAGE_OF.get(stage, stage)}"


def options_of(out: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An output's path and what dvc.yaml says of it."""
    if isinstance(out, str):
        return out, {}
    ((path, options),) = out.items()
    return path, options
