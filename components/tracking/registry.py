"""The model registry: versions of the policy, their tags, and the aliases that say which one counts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ArtifactError
from components.tracking import store
from components.tracking.tag_names import all_plain, packed

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CANDIDATE = "champion", "candidate"
POLICY_DIGEST, PROMOTION_RUN = "policy_digest", "promotion_run_id"
DECISIONS_ON = "decisions_on:"  # and the digest of the test prompts: how often a version was decided on them
_DATA = "data"  # where MLflow puts the files of a model that has a loader


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    number: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]


def version_at(name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None where the model or the alias does not exist."""
    model = _model(name)
    return None if model is None else _version(model, model.aliases.get(alias))


def find_version(reference: str) -> ModelVersion:
    """The version that NAME@ALIAS or NAME@NUMBER names.

    Raises:
        ArtifactError: there is no such model, alias or version; the message says what there is.
    """
    name, _, label = reference.partition("@")
    model = None if store.is_empty() else _model(name)
    version = None
    if model is not None and label:
        version = _version(model, label if label.isascii() and label.isdigit() else model.aliases.get(label))
    if version is None:
        raise ArtifactError(
            "there is no such registered model",
            where=reference,
            expected="NAME@ALIAS or NAME@NUMBER, such as policy@champion",
            found=_what_there_is(model),
            do="`make run` registers the candidate; the alias champion appears with the first promotion",
        )
    return version


def version_of_policy(name: str, policy_digest: str) -> ModelVersion | None:
    """The last version that was registered with these files."""
    model = _model(name)
    if model is None:
        return None
    numbers = (int(version.version) for version, tags in _versions(name) if tags.get(POLICY_DIGEST) == policy_digest)
    return _version(model, max(numbers, default=None))


def decisions_on(name: str, split: str) -> int:
    """How often a promotion was decided on these test prompts, over all versions that there are.

    Args:
        split: the digest of the test prompts.
    """
    return sum(int(tags.get(DECISIONS_ON + split, 0)) for _, tags in _versions(name))


def all_versions(name: str | None = None) -> list[ModelVersion]:
    """All versions that there are, of one model or of all; a model's first one first."""
    found = _versions(name)
    models = {
        each.name: _model(each.name) for each, _ in found
    }  # a search over versions names no aliases on a database
    return sorted(
        (
            ModelVersion(
                each.name, int(each.version), each.run_id or "", tags, _aliases(models[each.name], each.version)
            )
            for each, tags in found
        ),
        key=lambda version: (version.name, version.number),
    )


def _aliases(model: RegisteredModel | None, number: str | int) -> tuple[str, ...]:
    there = {} if model is None else model.aliases
    return tuple(sorted(alias for alias, target in there.items() if str(target) == str(number)))


def tags_of_model(name: str) -> dict[str, str]:
    """The tags of a registered model, which outlive its versions; none where there is no such model."""
    model = _model(name)
    return {} if model is None else dict(model.tags)


def _versions(name: str | None) -> list[tuple[Any, dict[str, str]]]:
    """All versions, with their plain tags."""
    with store.tracking_faults():
        found = store.client().search_model_versions(f"name = '{name}'" if name else None)
    return [(version, all_plain(version.tags)) for version in found]


def set_alias(version: ModelVersion, alias: str) -> None:
    """Point an alias to a version, away from any other."""
    with store.tracking_faults():
        store.client().set_registered_model_alias(version.name, alias, str(version.number))


def drop_alias(name: str, alias: str) -> None:
    """Take an alias away, if it is there."""
    with store.tracking_faults():
        store.client().delete_registered_model_alias(name, alias)


def set_tags(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Write tags of a version, over those of the same name."""
    with store.tracking_faults():
        for key, value in packed({**version.tags, **tags}).items():
            store.client().set_model_version_tag(version.name, str(version.number), key, value)


def describe(version: ModelVersion, description: str) -> None:
    """Write a version's description, Markdown, over the one that is there."""
    with store.tracking_faults():
        store.client().update_model_version(version.name, str(version.number), description)


def attach_to(version: ModelVersion, name: str, text: str) -> None:
    """Write a file beside those of a version, over the one of that name."""
    with store.tracking_faults():
        of = store.client().get_model_version(version.name, str(version.number)).source
        assert of is not None, "register says where its files are"
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_text(text, encoding="utf-8")
            store.client().log_model_artifact(of.rpartition("/")[2], str(file))


def fetch_policy(version: ModelVersion, folder: Path) -> Path:
    """Bring a version's policy into `folder` and return where it lies there.

    Raises:
        ArtifactError: its files are gone from the artifact store.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with store.tracking_faults():
        location = store.client().get_model_version_download_uri(version.name, str(version.number))
    try:
        copy = Path(download_artifacts(location, dst_path=str(folder), tracking_uri=store.tracking_uri()))
        [policy] = [path for path in (copy / _DATA).iterdir() if path.is_dir()]
    except (MlflowException, OSError, ValueError) as fault:
        raise ArtifactError(
            "the files of a registered model cannot be fetched",
            where=f"{version.name} version {version.number}: {location}",
            expected=f"a model with one folder below {_DATA}/",
            found=" ".join(str(fault).split())[:200],
            do="restore that folder; or, of a champion, `proximal rollback` makes the version before it champion again "
            "(`--to sft`: none, the next candidate is held against the SFT policy)",
        ) from fault
    return policy


def has_files(version: ModelVersion) -> bool:
    """Whether a version's policy lies in the artifact store; it is not read."""
    from mlflow.artifacts import list_artifacts
    from mlflow.exceptions import MlflowException

    with store.tracking_faults():
        location = store.client().get_model_version_download_uri(version.name, str(version.number))
    try:
        found = list_artifacts(artifact_uri=f"{location}/{_DATA}", tracking_uri=store.tracking_uri())
    except (MlflowException, OSError):  # as `fetch_policy` meets it
        return False
    return any(each.is_dir for each in found)


def _model(name: str) -> RegisteredModel | None:
    with store.tracking_faults():
        from mlflow.exceptions import MlflowException

        try:
            return store.client().get_registered_model(name)
        except MlflowException as fault:
            if fault.error_code in (
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_PARAMETER_VALUE",
            ):  # no such, no valid name
                return None
            raise


def _version(model: RegisteredModel, number: str | int | None) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    if number is None:
        return None
    with store.tracking_faults():
        try:
            found = store.client().get_model_version(model.name, str(number))
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted, or never was
                raise
            return None
    return ModelVersion(model.name, int(number), found.run_id or "", all_plain(found.tags), _aliases(model, number))


def _last_number(query: str) -> int | None:
    with store.tracking_faults():
        found = store.client().search_model_versions(query, order_by=["version_number DESC"], max_results=1)
    return int(found[0].version) if found else None


def _what_there_is(model: RegisteredModel | None) -> str:
    if store.is_empty():
        return f"no tracking store at {store.tracking_uri()}"
    if model is None:
        with store.tracking_faults():
            names = [known.name for known in store.client().search_registered_models()]
        return f"{', '.join(names) or 'no model'} in {store.tracking_uri()}"
    aliases = [f"{alias} (version {number})" for alias, number in sorted(model.aliases.items())]
    last = _last_number(f"name = '{model.name}'")
    return f"{model.name} with versions up to {last or 0} and aliases {', '.join(aliases) or 'none'}"
