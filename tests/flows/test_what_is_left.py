"""What a run leaves for the person who asked for it, from files made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import write_json, write_jsonl
from components.place import Place
from components.promotion.verdict import Verdict
from flows.ending import ending

VERDICT = Verdict("refused", "policy", 2, "policy version 1", ("gold fell",))


def fill(root: Path, ended: bool) -> Place:
    place = Place(root)
    row = {"prompt_id": "1", "prompt": "how?", "kind": None, "sample": 0, "response": "so .", "response_tokens": 3}
    row |= {"ended": ended, "reward": 0.0, "judge": 0.0, "kl": 0.0, "entropy": 1.0}
    write_jsonl(place.evaluation / "records.jsonl", [row | {"policy": policy} for policy in ("sft", "candidate")])
    write_json(place.evaluation / "metrics.json", {"of": root.name})
    write_json(place.sft / "metrics.json", {"vocabulary": 600})
    (place.evaluation / "report.html").write_text(f"evaluation of {root.name}")
    (place.selection / "policy").mkdir(parents=True)
    VERDICT.write(place.promotion)
    return place


def test_of_a_run_in_the_repository(tmp_path: Path) -> None:
    place = fill(tmp_path, ended=True)
    told = ending(tmp_path, tmp_path, "abc", offered=False, idle=False)
    assert (told.verdict, told.warnings, told.before) == (None, [], None)
    assert told.report == Path("artifacts/evaluation/report.html")
    assert told.model == Path("artifacts/selection/policy")
    (place.promotion / "report.html").touch()
    told = ending(tmp_path, tmp_path, "abc", offered=True, idle=False)
    assert told.verdict == VERDICT
    assert told.report == Path("artifacts/promotion/report.html")
    # What promotion left before is not of a run without one.
    assert ending(tmp_path, tmp_path, "abc", offered=False, idle=False).report == Path(
        "artifacts/evaluation/report.html"
    )


@pytest.mark.parametrize("has_run_before", [True, False])
def test_of_a_run_in_a_clone_the_report_outlives_it(tmp_path: Path, has_run_before: bool) -> None:
    clone = tmp_path / ".work/runs/clone"
    fill(clone, ended=False)
    if has_run_before:
        write_json(Place(tmp_path).evaluation / "metrics.json", {"of": "here"})
    told = ending(clone, tmp_path, "abc", offered=True, idle=False)
    assert told.report == Path(".work/reports/abc.html")
    assert (tmp_path / told.report).read_text() == "evaluation of clone"
    assert told.model is None
    assert told.before == ({"of": "here"} if has_run_before else None)
    assert [warning.split(" do not end")[0] for warning in told.warnings] == [
        "responses of the SFT policy",
        "responses of the candidate",
    ]


def test_of_a_pipeline_that_does_not_evaluate(tmp_path: Path) -> None:
    told = ending(tmp_path, tmp_path, "abc", offered=False, idle=False)
    assert (told.report, told.model, told.warnings) == (None, None, [])
