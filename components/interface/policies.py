"""A policy as people name it: a folder, or NAME@ALIAS of a registered model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import ArtifactError
from components.models.adapter_origin import CONFIG_FILE
from components.tracking.registry import ModelVersion, fetch_policy, find_version

_URI = "models:/"


@contextmanager
def policy_folder(policy: str) -> Iterator[Path]:
    """Where a policy lies, for the block. MLflow's models:/NAME@ALIAS and models:/NAME/NUMBER are taken, too.

    Args:
        policy: a folder that a stage or a registered model holds, or NAME@ALIAS or NAME@NUMBER of a registered one.

    Raises:
        ArtifactError: there is none.
    """
    version = version_named(policy)
    if version is None:
        if not any(Path(policy, name).exists() for name in ("config.json", CONFIG_FILE)):
            raise ArtifactError(
                "this is no policy",
                where=policy,
                expected="a folder with config.json, such as artifacts/alignment/2/policy, or NAME@ALIAS",
                found="no such file in it" if Path(policy).is_dir() else "no such folder",
            )
        yield Path(policy)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_policy(version, Path(scratch))


def version_named(policy: str) -> ModelVersion | None:
    """The registered version that people name; None for a folder.

    Raises:
        ArtifactError: there is none of that name.
    """
    if policy.startswith(_URI):
        policy = policy.removeprefix(_URI)
        policy = policy if "@" in policy else "@".join(policy.rsplit("/", 1))
    return None if "@" not in policy or Path(policy).exists() else find_version(policy)
