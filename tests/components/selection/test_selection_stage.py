from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.artifacts import read_json, write_json
from components.config import Params, load_params
from components.errors import ArtifactError
from components.place import Place
from components.stages import perform
from components.tracking.tag_names import stored

ROOT = Path(__file__).resolve().parents[3]
POLICY = Path("artifacts/selection/policy/model.safetensors")


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params) -> Path:
    """A workspace whose second cycle is the best one; its policy is a file that says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for variable in ("PROXIMAL_PARENT_RUN_ID", "PROXIMAL_FLOW_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RANK", "1")  # a process that tells MLflow nothing
    for number in params.cycles:
        folder = Path("artifacts/alignment") / number
        measured = {"reward": float(number), "judge": 1.0 if number == "2" else 0.5, "kl": 1.5}
        metrics = {
            "validation": measured,
            "validation_start": {"reward": 0.0, "judge": 0.2, "kl": 0.0},
            "cost": {"sampled_tokens": 10 * int(number), "trained_tokens": 7},
        }
        write_json(folder / "metrics.json", metrics)
        (folder / "policy").mkdir()
        (folder / "policy" / "model.safetensors").write_text(f"weights of cycle {number}")
    return tmp_path


@pytest.mark.usefixtures("cycles")
def test_copies_the_chosen_policy_and_writes_why(params: Params) -> None:
    perform("selection", params, Place())

    assert POLICY.read_text() == "weights of cycle 2"
    selection = read_json(Path("artifacts/selection/selection.json"))
    assert (selection["cycle"], selection["judge"], selection["kl"]) == (2, 1.0, 1.5)
    assert selection["judge_of_sft"] == 0.2
    assert selection["within_ceiling"] is True
    assert selection["cost"] == {"sampled_tokens": 10 + 20, "trained_tokens": 7 + 7}  # of cycles 1 and 2
    rejected = [other["cycle"] for other in selection["rejected"]]
    assert rejected == [int(number) for number in params.cycles if number != "2"]
    table = read_json(Path("artifacts/selection/cycles.json"))
    assert [row["cycle"] for row in table] == list(range(len(params.cycles) + 1))


@pytest.mark.usefixtures("cycles")
def test_a_missing_policy_leaves_nothing_behind(params: Params) -> None:
    Path("artifacts/alignment/2/policy/model.safetensors").unlink()
    Path("artifacts/alignment/2/policy").rmdir()

    with pytest.raises(ArtifactError, match="an input is missing\n  where:      artifacts/alignment/2/policy"):
        perform("selection", params, Place())

    assert not list(Path("artifacts").glob("*selection*"))


@pytest.mark.usefixtures("cycles")
def test_mlflow_remembers_the_choice_and_the_way_back(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.tracking import store

    monkeypatch.delenv("RANK")

    perform("selection", params, Place())

    (recorded,) = store.client().search_runs([store.experiment_id()], "tags.stage = 'selection'")
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["selected/cycle"] == 2.0
    assert stored("out:artifacts/selection/policy") in recorded.data.tags
    assert stored("in:artifacts/alignment/2/policy") in recorded.data.tags


def test_needs_no_torch() -> None:
    code = "import sys, components.selection.run; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
