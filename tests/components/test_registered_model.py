"""A registered model needs nothing but itself: it is loaded where this repository is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from mlflow.artifacts import download_artifacts

from components.config import load_params
from components.engines.answering import Answerer
from components.place import Place
from components.tracking import stage_run
from components.tracking import store as tracking_store
from components.tracking.recorder import RecordedRun
from components.tracking.registration import register
from components.tracking.registry import ModelVersion

ANSWERING: dict[str, Any] = {"temperature": 0.7, "max_response_tokens": 6, "seed": 3}
PROMPTS = ["How do I fix this?", "hello"]
_ANSWER = (
    "import json, sys, mlflow.pyfunc\n"
    "print(json.dumps(mlflow.pyfunc.load_model('model').predict(json.load(sys.stdin))))"
)


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    """A registered model's folder, downloaded."""
    with stage_run("promotion", load_params(Place().params)) as run:
        assert isinstance(run, RecordedRun)
        version: ModelVersion = register(run.run_id, "portable", Place().sft / "policy", {}, ANSWERING)
    location = tracking_store.client().get_model_version_download_uri(version.name, str(version.number))
    download_artifacts(location, dst_path=str(tmp_path / "elsewhere"), tracking_uri=tracking_store.tracking_uri())
    [folder] = [file.parent for file in (tmp_path / "elsewhere").rglob("MLmodel")]
    return folder.rename(tmp_path / "elsewhere" / "model")


@pytest.mark.timeout(900)  # pip fetches torch
def test_it_answers_in_an_environment_made_from_its_own_requirements(model: Path, tmp_path: Path) -> None:
    expected = Answerer(Place().sft / "policy").answer(PROMPTS, **ANSWERING)
    assert len({*expected, ""}) == 3
    venv.create(tmp_path / "venv", with_pip=False)
    python = str(tmp_path / "venv" / "bin" / "python")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "MLFLOW"))}
    # Installed by this environment's pip, which spares the making of another one.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"]
    subprocess.run([*pip, "-r", str(model / "requirements.txt")], env=own, check=True)
    done = subprocess.run(
        [python, "-c", _ANSWER], input=json.dumps(PROMPTS), cwd=model.parent, env=own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_its_requirements_are_exact_and_not_this_distribution(model: Path) -> None:
    lines = (model / "requirements.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines and len(lines) > 5
    for line in lines:
        name, equals, version = line.partition("==")
        assert equals and version and "+" not in version and not name.startswith("proximal")
    assert not list(model.rglob("__pycache__"))
    assert (model / "code" / "components" / "engines" / "policy_model.py").exists()
