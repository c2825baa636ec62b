"""A policy as people name it: a folder, or NAME@ALIAS of a registered model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.config import Params
from components.errors import ArtifactError
from components.models.adapter_origin import CONFIG_FILE
from components.place import Place
from components.tracking import store
from components.tracking.registry import CHAMPION, ModelVersion, fetch_policy, find_version, version_at

_URI = "models:/"


@contextmanager
def policy_folder(policy: str) -> Iterator[Path]:
    """Where a policy lies, for the block. MLflow's models:/NAME@ALIAS and models:/NAME/NUMBER are taken, too.

    Args:
        policy: a folder that a stage or a registered model holds, or NAME@ALIAS or NAME@NUMBER of a registered one.

    Raises:
        ArtifactError: there is none.
    """
    version = require_policy(policy)
    if version is None:
        yield Path(policy)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_policy(version, Path(scratch))


def require_policy(policy: str) -> ModelVersion | None:
    """The registered version that people name, or None where it is a folder, which is there.

    Raises:
        ArtifactError: there is none.
    """
    version = version_named(policy)
    if version is None and not any(Path(policy, name).exists() for name in ("config.json", CONFIG_FILE)):
        raise ArtifactError(
            "this is no policy",
            where=policy,
            expected="a folder with config.json, such as artifacts/alignment/2/policy, or NAME@ALIAS",
            found="no such file in it" if Path(policy).is_dir() else "no such folder",
        )
    return version


def sft_and_best(params: Params, place: Place) -> tuple[str, str]:
    """What people compare who name nothing: the SFT policy and the champion, else the selected one."""
    registered = params.promotion.registered_model
    has_champion = not store.is_empty() and version_at(registered, CHAMPION) is not None
    best = f"{registered}@{CHAMPION}" if has_champion else str(place.selection / "policy")
    return str(place.sft / "policy"), best


def version_named(policy: str) -> ModelVersion | None:
    """The registered version that people name; None for a folder.

    Raises:
        ArtifactError: there is none of that name.
    """
    if policy.startswith(_URI):
        policy = policy.removeprefix(_URI)
        policy = policy if "@" in policy else "@".join(policy.rsplit("/", 1))
    return None if "@" not in policy or Path(policy).exists() else find_version(policy)
