"""What is sure to fail later is refused before a server is started, a clone is made and a stage is paid for."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import ConfigError

# What a run in a clone takes from the last commit: with changes here, it would not run what is seen.
COMMITTED = ("components", "flows", "infra/accelerate", "params.yaml", "dvc.yaml", "data.dvc")


def require_repository() -> Path:
    """The present folder.

    Raises:
        ConfigError: it holds no pipeline, its params are not valid, or it is no git repository.
    """
    from components.config import load_params
    from components.place import Place

    load_params(Place().params)
    if subprocess.run(["git", "rev-parse"], capture_output=True, check=False).returncode != 0:
        raise ConfigError(
            "this folder is no git repository",
            where=str(Path.cwd()),
            expected="a clone of the project: DVC and lineage rest on its commits",
            found="files without a .git folder",
            do="`git clone` the project, or here: `git init`, `git add --all` and `git commit --message start`",
        )
    return Path.cwd()


def parse_change(text: str) -> tuple[str, Any]:
    """A dotted key and its value, read as YAML, from KEY=VALUE."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("no =")
        return key.strip(), YAML(typ="safe").load(value)
    except (ValueError, YAMLError) as fault:
        raise ConfigError("this is no change", where="--set", expected="KEY=VALUE", found=text) from fault


def require_committed(repository: Path) -> None:
    """
    Raises:
        ConfigError: what a clone would run is not what lies in the folder.
    """
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", *COMMITTED]
    changed = subprocess.run(status, cwd=repository, capture_output=True, check=True, text=True).stdout.split("\n")
    if changed := [line[3:] for line in changed if line]:
        raise ConfigError(
            "a run in a clone uses the last commit, and this folder has changed since",
            where=", ".join(changed),
            expected="no changes",
            do="commit them, or `git stash`",
        )


def require_sound(repository: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse what is sure to fail before a server is started, a clone is made and a stage is paid for.

    Raises:
        ConfigError: a key or value that cannot be, or an Accelerate config that would not be obeyed in every stage.
    """
    from components.config.accelerate import accelerate_config
    from components.config.shares import TRAINING_STAGES, require_shares
    from components.measuring.rubric import load_rubric
    from flows.workspace import overridden

    params = overridden(repository, overrides)
    config = accelerate_config(repository / params.compute.accelerate_config)
    for stage in TRAINING_STAGES:
        require_shares(stage, params, config)
    load_rubric(params.data)
