"""A policy as a model that MLflow serves, and as a version in its registry."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from components.tracking import store
from components.tracking.registry import ModelVersion
from components.tracking.tag_names import packed

_LOADER = "components.engines.policy_model"  # MLflow calls its `_load_pyfunc`
# What `_LOADER` and what it imports need from outside, and what MLflow needs to load it.
_REQUIRED = (
    *("mlflow-skinny", "pandas", "torch", "transformers", "accelerate", "tokenizers", "safetensors"),
    *("numpy", "psutil", "pydantic", "ruamel.yaml"),
)
_MODEL = (
    "Policies that `proximal run` aligned with human preferences. `champion` is the last one that beat the one before "
    "it on held-out prompts; `candidate` is the last one that was tried. `proximal lineage NAME@champion` prints the "
    "way from a version back to the raw rows."
)


def register(
    run_id: str,
    name: str,
    policy_folder: Path,
    tags: Mapping[str, str],
    answering: Mapping[str, float | int],
    description: str = "",
    figures: Mapping[str, float] | None = None,
    pipeline: str = "",
) -> ModelVersion:
    """Copy a policy into MLflow as a model that `mlflow.pyfunc.load_model` loads, and register a version.

    The model carries the code that answers, and names what else that needs with its versions: an environment that is
    made from its requirements.txt is enough, without this repository.

    Args:
        run_id: the run that registers it.
        answering: the defaults of `components.engines.policy_model`'s params, which callers of `predict` may change.
        description: of the version, Markdown.
        figures: by which MLflow compares models.
        pipeline: the run of the whole pipeline, whose page names the model too; "" where there is none.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    client = store.client()
    kinds = {float: "double", int: "long"}
    schema = ParamSchema([ParamSpec(key, kinds[type(value)], value) for key, value in answering.items()])
    text = Schema([ColSpec("string")])  # a column of prompts in, one of responses out
    with store.tracking_faults(), tempfile.TemporaryDirectory() as scratch:
        logged = client.create_logged_model(store.experiment_id(), name=name, source_run_id=run_id)
        mlflow.pyfunc.save_model(
            path=f"{scratch}/model",
            loader_module=_LOADER,
            data_path=str(policy_folder),
            mlflow_model=Model(run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            signature=ModelSignature(inputs=text, outputs=text, params=schema),
            input_example=["Hello, my printer shows a red light. How do I fix it?"],
            code_paths=[_copy_of_code(Path(scratch))],
            pip_requirements=_requirements(),
        )
        client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        client.finalize_logged_model(logged.model_id, "READY")
        for run in filter(None, (run_id, pipeline)):
            client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
        now = int(time.time() * 1000)
        metrics = [
            Metric(key, round(value, 4), now, 0, model_id=logged.model_id, run_id=run_id)
            for key, value in (figures or {}).items()
        ]
        client.log_batch(run_id, metrics=metrics)
        try:
            client.create_registered_model(name, description=_MODEL)
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run_id,
            tags=packed(tags),
            model_id=logged.model_id,
            description=description,
        )
        # MLflow's own way to tell a logged model of its versions, which only its fluent functions go.
        of_model = json.dumps([{"name": name, "version": version.version}])
        client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": of_model})
    return ModelVersion(name, int(version.version), run_id, dict(tags), ())


def _copy_of_code(scratch: Path) -> str:
    """This package without compiled files, in a folder that MLflow may copy."""
    copy = scratch / "code" / "components"
    shutil.copytree(Path(__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
    return str(copy)


def _requirements() -> list[str]:
    """The versions that are installed here, without the name of a build ("+cpu") that another machine need not have."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in _REQUIRED]
