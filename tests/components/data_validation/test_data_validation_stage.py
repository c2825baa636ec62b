"""The stage as a whole: files in, files out, real MLflow in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.config import Params, load_params
from components.config.scoring import Rubric
from components.data_validation.gathering import read_raw_files
from components.data_validation.links import refuse_links
from components.digests import digest
from components.errors import DataError
from components.place import Place
from components.stages import perform
from components.tracking.tag_names import stored

ROOT = Path(__file__).parents[3]
OUTPUTS = Path("artifacts/data_validation")


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def params(limits: Any, tmp_path: Path, tracking: str, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The shipped params with the limits of the small world, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.delenv("PROXIMAL_PARENT_RUN_ID", raising=False)
    return load_params(ROOT / "params.yaml").model_copy(update={"data_validation": limits()})


def refused(params: Params) -> str:
    """The message of the refusal, after making sure that it is all that is left."""
    with pytest.raises(DataError) as error:
        perform("data_validation", params, Place())
    left = {path.name for path in Path().rglob("*")} - {"mlartifacts"}
    left.discard(Place().work.name)  # the journal of its record lay there; with anything in it, that is left
    assert left <= {"data", "prompts.jsonl", "demonstrations.jsonl", "comparisons.jsonl"}
    return str(error.value)


def test_writes_all_outputs_twice_the_same(params: Params, world: Any) -> None:
    world.demonstrations[4]["response"] = ""
    world.write(Path("data"))
    perform("data_validation", params, Place())
    assert {path.relative_to(OUTPUTS).as_posix() for path in OUTPUTS.rglob("*") if path.is_file()} == {
        "clean/prompts_train.jsonl",
        "clean/prompts_validation.jsonl",
        "clean/prompts_test.jsonl",
        "clean/demonstrations.jsonl",
        "clean/comparisons_reward_model.jsonl",
        "clean/comparisons_reward_model_heldout.jsonl",
        "clean/comparisons_reward_model_heldout_pairs.jsonl",
        "clean/comparisons_judge.jsonl",
        "clean/comparisons_judge_heldout.jsonl",
        "clean/comparisons_judge_heldout_pairs.jsonl",
        "quarantine.jsonl",
        "report.json",
        "report.html",
    }
    assert json.loads((OUTPUTS / "report.json").read_text())["demonstrations"]["kept"] == 19
    first_row = json.loads((OUTPUTS / "clean/demonstrations.jsonl").read_text().splitlines()[0])
    assert first_row == world.demonstrations[0] | {"raw_row": 1}
    before = digest(OUTPUTS)
    (OUTPUTS / "stale.jsonl").write_text("from an older version")
    perform("data_validation", params, Place())
    assert digest(OUTPUTS) == before


def test_a_link_is_refused_unless_it_is_dvcs_own(tmp_path: Path) -> None:
    data, elsewhere, cached = tmp_path / "data", tmp_path / "private", tmp_path / "cache/files/md5/ab/cdef"
    (data / "deep").mkdir(parents=True)
    cached.parent.mkdir(parents=True)
    for file in (elsewhere, cached, data / "prompts.jsonl"):
        file.write_text("{}\n")
    (data / "demonstrations.jsonl").symlink_to(cached)
    refuse_links(data)
    (data / "deep" / "comparisons.jsonl").symlink_to(elsewhere)
    (tmp_path / "linked").symlink_to(data)
    for folder, named in ((data, "data/deep/comparisons.jsonl"), (tmp_path / "linked", "linked, ")):
        with pytest.raises(DataError, match="symbolic links") as caught:
            read_raw_files(folder, {})
        assert named in caught.value.where
        assert str(elsewhere) in caught.value.found and "demonstrations" not in caught.value.where


def test_a_missing_folder_is_named(params: Params) -> None:
    message = refused(params)
    assert "where:      data\n" in message
    assert "no such folder" in message
    assert "dvc pull data.dvc" in message


def test_a_folder_without_a_raw_file_is_named(params: Params) -> None:
    Path("data").mkdir()
    Path("data/README.md").write_text("what this is")
    with pytest.raises(DataError, match="no such file"):
        perform("data_validation", params, Place())


def test_json_that_does_not_parse_is_named_by_line(params: Params, world: Any) -> None:
    world.write(Path("data"))
    path = Path("data/demonstrations.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line[:-1] if number % 2 else line}\n" for number, line in enumerate(lines)))
    message = refused(params)
    assert "data/demonstrations.jsonl" in message
    assert '10 of 20 rows (0.5): 10 times "the line is not JSON" (rows 2, 4, 6, 8, 10, ...)' in message
    assert "at most 0.2 of the rows" in message


def test_a_missing_column_is_named(params: Params, world: Any) -> None:
    world.drop("comparisons", "rejected")
    world.write(Path("data"))
    message = refused(params)
    assert "data/comparisons.jsonl, column rejected" in message


def test_rows_that_fail_the_schema_are_named(params: Params, world: Any) -> None:
    for row in world.prompts[:9]:
        row["prompt"] = 3
    world.write(Path("data"))
    message = refused(params)
    assert 'prompts.jsonl: 9 of 40 rows (0.225): 9 times "prompt is not text" (rows 1, 2,' in message


def test_an_empty_file_and_an_empty_split_are_named(params: Params, world: Any) -> None:
    world.prompts = world.prompts[:30]
    world.write(Path("data"))
    assert "no row in prompts_test" in refused(params)
    Path("data/demonstrations.jsonl").write_text("")
    message = refused(params)
    assert "data/demonstrations.jsonl" in message
    assert "an empty file" in message


def test_a_refusal_leaves_older_outputs_whole(params: Params, world: Any) -> None:
    world.write(Path("data"))
    perform("data_validation", params, Place())
    before = digest(OUTPUTS)
    Path("data/prompts.jsonl").write_text("{}\n")
    with pytest.raises(DataError):
        perform("data_validation", params, Place())
    assert digest(OUTPUTS) == before


def test_the_run_in_mlflow_knows_data_and_outputs(params: Params, world: Any, tracking: str) -> None:
    import mlflow

    world.write(Path("data"))
    perform("data_validation", params, Place())
    client = mlflow.MlflowClient(tracking)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    record = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)[0]
    assert record.data.tags[stored("in:data")] == digest(Path("data"))
    assert record.data.tags[stored("out:artifacts/data_validation/clean")] == digest(OUTPUTS / "clean")
    assert record.data.metrics["comparisons/kept"] == 40
    assert {item.dataset.name for item in record.inputs.dataset_inputs} == {
        "prompts",
        "demonstrations",
        "comparisons",
    }


def test_comparisons_may_be_none_where_nothing_is_trained_on_them(params: Params, world: Any) -> None:
    world.write(Path("data"))
    Path("data/comparisons.jsonl").unlink()
    with pytest.raises(DataError, match="no comparisons, and something is trained on them") as error:
        perform("data_validation", params, Place())
    assert error.value.expected == "comparisons for reward_model, judge"
    rubric = params.reward_model.parts | {"trained": Rubric(source="rubric", weight=1.0)}
    scorers = {name: getattr(params, name).model_copy(update={"parts": rubric}) for name in ("reward_model", "judge")}
    with pytest.raises(DataError) as error:
        perform("data_validation", params.model_copy(update=scorers | {"method": "dpo"}), Place())
    assert error.value.expected == "comparisons for dpo"
    perform("data_validation", params.model_copy(update=scorers), Place())
    assert (OUTPUTS / "clean/comparisons_judge_heldout.jsonl").read_text() == ""
    assert len((OUTPUTS / "clean/demonstrations.jsonl").read_text().splitlines()) == 20
