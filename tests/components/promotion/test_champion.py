"""The champion: measured again as it answers, loaded again from the registry, and missed where it is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate, versions, without_rubric

from components.data.rows import Prompt
from components.errors import ArtifactError
from components.measuring.measure import TEST_STREAM, measure_policy
from components.measuring.metrics import JUDGE
from components.measuring.records import prompt_means, read_records
from components.place import Place
from components.promotion.champion import fetched, measure_champion
from components.stages import perform
from components.tracking import store as tracking_store
from components.tracking.registry import version_at


def test_a_champion_with_another_tokenizer_is_compared_by_its_text(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = params_named("tokenizers")
    put_candidate(models, 3, gold=1.0)
    perform("promotion", params, Place())
    for has_rubric, name in ((True, "gold"), (False, "judge")):
        changed = params if has_rubric else without_rubric(params)
        put_candidate(
            models, 1, gold=100.0, kl=99.0, has_rubric=has_rubric
        )  # too far from SFT, so that policy_3 stays champion
        perform("promotion", changed, Place())
        said = capsys.readouterr().out
        assert f"  {name}" in said and "against tokenizers version 1" in said
        assert "does not rise" not in said and "KL to the SFT policy is 99.00" in said


def test_a_champion_whose_files_are_gone_is_named_and_nothing_is_registered(
    workspace: Path, models: Path, shared_store: Path
) -> None:
    params = params_named("gone")
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params, Place())
    source = tracking_store.client().get_model_version_download_uri("gone", "1")
    assert Path(source).is_relative_to(shared_store)
    shutil.rmtree(source)
    put_candidate(models, 2, gold=0.75)
    with pytest.raises(ArtifactError, match="gone version 1"):
        perform("promotion", params, Place())
    assert versions("gone") == [1]


def test_a_champion_that_chooses_among_responses_is_measured_as_it_answers(workspace: Path, models: Path) -> None:
    params = params_named("chooser")
    put_candidate(models, 4, gold=0.75)
    perform("promotion", params, Place())
    champion = version_at("chooser", "champion")
    assert champion is not None
    candidate = read_records(Place().evaluation / "records.jsonl")["candidate"]
    prompts = [Prompt(row.prompt_id, row.prompt, kind="known") for row in candidate]
    samples = params.measurement.test_samples_per_prompt
    records = measure_policy(models / "policy_4", Place().frozen, params.shared, prompts, samples, TEST_STREAM)
    with fetched(champion) as folder:
        found = measure_champion(folder, Place().frozen, params.shared, candidate, prompts, JUDGE)
    assert found == prompt_means(records, "judge")
    plain = measure_policy(models / "policy_1", Place().frozen, params.shared, prompts, samples, TEST_STREAM)
    assert all(record.reward >= other.reward - 1e-5 for record, other in zip(records, plain, strict=True))
    assert [record.response for record in records] != [other.response for other in plain]


@pytest.mark.parametrize("number", [1, 4], ids=["policy", "best of 2"])
def test_the_champion_loads_and_answers_in_a_fresh_process_without_the_artifacts(
    workspace: Path, models: Path, shared_store: Path, number: int
) -> None:
    put_candidate(models, number, gold=0.75)
    perform("promotion", params_named(f"served_{number}"), Place())
    shutil.rmtree("artifacts")
    code = """
import sys, mlflow, pandas
model = mlflow.pyfunc.load_model(f"models:/served_{sys.argv[1]}@champion")
prompts = ["My printer does not start.", "My screen stays dark."]
answers = model.predict(prompts)
assert isinstance(answers, list) and len(answers) == 2 and all(isinstance(a, str) for a in answers), answers
assert model.predict(prompts) == answers, "the default seed is fixed"
assert model.predict(pandas.DataFrame({"prompt": prompts, "id": [1, 2]})) == answers
assert model.predict(prompts[0]) == answers[:1]
signature = model.metadata.signature
assert str(signature.inputs) == str(signature.outputs) == "[string (required)]", signature
assert model.predict(prompts * 8, params={"seed": 7}) != answers * 8
assert model.predict(prompts, params={"max_response_tokens": 1}) != answers
id_first = pandas.DataFrame({"id": [1, 2], "prompt": prompts})
wrong = {"schema": [[1, 2], [], id_first], "the model cannot read these prompts": [pandas.DataFrame({"text": prompts})]}
for said, inputs in wrong.items():
    for data in inputs:
        try:
            model.predict(data)
        except Exception as fault:
            assert said in str(fault), fault
        else:
            raise AssertionError(data)
"""
    # In the root of a repository MLflow finds mlflow.db without being told.
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(number)],
        cwd=shared_store,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
