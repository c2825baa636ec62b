"""What is sure to fail later is refused before a server is started, a clone is made and a stage is paid for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.errors import ConfigError
from components.repository import require_git

# What a run in a clone takes from the last commit: with changes here, it would not run what is seen.
COMMITTED = ("components", "flows", "infra/accelerate", "params.yaml", "dvc.yaml", "data.dvc")
_ROOT = ("dvc.yaml", "params.yaml")  # what lies in a project's root


def find_root() -> Path | None:
    """The root of the project that the present folder is in, as git finds it; None outside of all projects.

    It is a relative path, so that every path from it on can be used from the present folder.
    """
    here = Path.cwd()
    for up, folder in enumerate((here, *here.parents)):
        if all((folder / name).exists() for name in _ROOT):
            return Path(*[".."] * up)
    return None


def require_repository() -> Path:
    """The root of the project that the present folder is in, relative to it.

    Raises:
        ConfigError: the folder is in none, the project's params are not valid, or it is no git repository.
        EnvironmentFault: git is not installed.
    """
    from components.config import load_params
    from components.place import Place

    root = find_root()
    if root is None:
        raise ConfigError(
            "this folder is in no project",
            where=str(Path.cwd()),
            expected=f"a folder with {' and '.join(_ROOT)}, or one below it",
            found="neither here nor above",
            do="go into a clone of the project; a deleted file comes back with `git checkout FILE`",
        )
    load_params(Place(root).params)
    require_git(root)
    sys.path.insert(0, str(root.resolve()))  # modules of the project's own, such as a rubric's, as a stage has them
    return root


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Dotted keys and their values, read as YAML, from several KEY=VALUE.

    Raises:
        ConfigError: one has not that form, or two have one key.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        key, value = _parse_change(text)
        if key in changes:
            raise ConfigError("a key is given twice", where=f"--set {key}", expected="one value", found=text)
        changes[key] = value
    return changes


def _parse_change(text: str) -> tuple[str, Any]:
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
    require_pinned_data(repository)


def require_pinned_data(repository: Path) -> None:
    """
    Raises:
        ConfigError: data/ holds other than what data.dvc pins.
    """
    from components.digests import digest
    from components.place import Place
    from components.tracking.dvc_files import pinned_data

    data, pinned = Place(repository).data, pinned_data(repository)
    if pinned is not None and data.is_dir() and any(data.iterdir()) and (found := digest(data)) != pinned:
        raise ConfigError(
            "data/ holds other than what data.dvc pins, and clones would not have it",
            where=str(data),
            expected=pinned,
            found=found,
            do="`dvc add data` and commit data.dvc, or `dvc checkout data.dvc`, which brings back what was",
        )


def require_sound(repository: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse what is sure to fail before a server is started, a clone is made and a stage is paid for.

    Raises:
        ConfigError: a key or value that cannot be, or an Accelerate config that would not be obeyed in every stage,
            or that asks for GPUs or layers that are not there, or a rubric, a reward function, a stored scorer or an
            engine of rollouts that cannot be used, or pools without the servers and the remote that they take.
        EnvironmentFault: an engine of rollouts does not answer.
    """
    from components.config import load_params
    from components.config.accelerate import accelerate_config
    from components.config.shares import TRAINING_STAGES, require_shares
    from components.measuring.rubric import load_rubric
    from components.place import Place
    from components.promotion.suites import require_suites
    from components.scoring.require import require_scorers
    from flows.pools import require_pools

    params = load_params(Place(repository).params, overrides)
    require_pools(params, repository)
    config = accelerate_config(repository / params.compute.accelerate_config)
    for stage in TRAINING_STAGES:
        require_shares(stage, params, config)
    load_rubric(params.data)
    require_scorers(params, Place(repository))
    require_suites(params.promotion.suites, repository)
    if not config.use_cpu or config.is_sharded:
        # torch takes seconds
        from components.training.requirements import require_deepspeed, require_devices, require_layer_classes

        require_deepspeed(config)
        require_devices(config)
        require_layer_classes(params.language_model, config, repository)
    if params.generation.engine != "own":
        from components.engines.vllm_require import require_engine

        require_engine(params, repository, on_cpu=config.use_cpu)
