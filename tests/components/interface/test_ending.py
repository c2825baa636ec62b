"""The last lines of a run: the verdict, and the ways to what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.style import Style
from rich.text import Text

from components.interface.terminal import Ending, show_result, verdict_text
from components.promotion.verdict import Verdict
from components.tracking import history
from components.tracking import store as tracking_store
from components.tracking.history import get_run
from components.tracking.store import client
from components.tracking.writing import create_run

FIGURES = {"opponent_gold": 0.507, "candidate_gold": 0.7174, "gain": 0.2104, "gain_low": 0.178, "gain_high": 0.244}
PROMOTED = Verdict("promoted", "policy", 1, "the SFT policy", metric="gold", figures=FIGURES)
FELL = "gold fell: -0.015 [-0.028, -0.003]"
REFUSED = Verdict("refused", "policy", 2, "policy version 1", (FELL, "KL is high"), "gold", FIGURES)
REPORT, MODEL = Path("artifacts/promotion/report.html"), Path("artifacts/selection/policy")


def evaluation(gold: float) -> dict[str, Any]:
    figures = {"gold": {"mean": gold, "low": gold - 0.03, "high": gold + 0.03}}
    return {"sft": figures, "candidate": figures, "difference": figures, "win_rate": figures["gold"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def told(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a run ends with, line by line; without a terminal unless it is given columns."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")

    def tell(ending: Ending, columns: int | None = None, gold: float = 0.717) -> list[str]:
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        else:
            monkeypatch.delenv("COLUMNS", raising=False)
        show_result(None, evaluation(gold), ending)
        return capsys.readouterr().out.splitlines()

    return tell


@pytest.fixture
def run_id(told: Any) -> str:
    return create_run("ppo, seed 1", {}, {})


def test_the_last_lines_are_the_verdict_and_the_ways_to_what_was_made(told: Any, run_id: str) -> None:
    *_, verdict, report, model, run, page = told(Ending(run_id, PROMOTED, report=REPORT, model=MODEL))
    assert verdict == (
        "PROMOTED: policy version 1 is the champion: gold 0.507 -> 0.717, +0.210 [+0.178, +0.244] "
        "against the SFT policy"
    )
    assert report == "report: artifacts/promotion/report.html"
    assert model == "model:  models:/policy@champion (artifacts/selection/policy)"
    assert run == f"run:    {run_id} in MLflow: `proximal ui`, then"
    assert page == f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}?workflowType=machine_learning"
    assert len(run) <= 80  # an address may be longer: it is never broken in two


def test_a_run_that_mlflow_has_not_kept_is_not_pointed_to(told: Any, run_id: str) -> None:
    client().delete_run(run_id)
    for gone in (run_id, "abc"):
        assert told(Ending(gone, PROMOTED))[-1] == "run:    MLflow keeps none of this one: nothing had changed"


def test_a_run_with_nothing_to_do_says_so_and_who_is_the_champion(told: Any) -> None:
    idle = "nothing has changed since these results were made; policy version 1 is the champion"
    refused = Verdict("already refused", "policy", 2, "policy version 1", (FELL,))
    lines = told(Ending("abc", refused, idle=idle))
    start = lines.index(f"NOTHING TO DO: {idle}")
    assert lines[start + 1].startswith("ALREADY REFUSED: policy version 2 stays a candidate")
    assert not [line for line in told(Ending("abc", idle=idle)) if "NOT OFFERED" in line]
    assert Ending("abc", idle=idle).plain()["nothing_to_do"] == idle
    assert Ending("abc", idle=idle).plain()["run_id"] is None


def test_a_refusal_says_why_and_against_whom(told: Any) -> None:
    *_, verdict, _, model, _ = told(Ending("abc", REFUSED, report=REPORT, model=MODEL))
    assert verdict == (
        f"REFUSED: policy version 2 stays a candidate, because {FELL}; KL is high "
        "(gold 0.507 -> 0.717, +0.210 [+0.178, +0.244] against policy version 1)"
    )
    assert model == "model:  models:/policy/2 (artifacts/selection/policy)"


def test_at_80_columns_lines_break_between_words_and_paths_stay_whole(told: Any) -> None:
    long = "artifacts/" + "x" * 100 + "/report.html"
    lines = told(Ending("a" * 32, PROMOTED, ["a warning " * 12], Path(long), MODEL), columns=80)
    assert f"report: {long}" in lines
    assert all(len(line) <= 80 for line in lines if long not in line)
    start = lines.index(next(line for line in lines if line.startswith("PROMOTED")))
    assert lines[start : start + 2] == [
        "PROMOTED: policy version 1 is the champion:",
        "  gold 0.507 -> 0.717, +0.210 [+0.178, +0.244] against the SFT policy",
    ]
    lines = told(Ending("abc", REFUSED), columns=80)
    start = lines.index("REFUSED: policy version 2 stays a candidate, because")
    assert lines[start + 1 : start + 4] == [
        f"  {FELL};",
        "  KL is high",
        "  (gold 0.507 -> 0.717, +0.210 [+0.178, +0.244] against policy version 1)",
    ]


def test_what_is_wrong_with_a_policy_stands_before_the_verdict(told: Any) -> None:
    lines = told(Ending("abc", PROMOTED, ["the candidate repeats itself"]))
    assert lines.index("warning: the candidate repeats itself") == lines.index(PROMOTED.sentence()) - 1


def test_a_run_in_a_clone_stands_beside_the_one_that_it_varied(told: Any) -> None:
    lines = told(Ending("abc", REFUSED, before=evaluation(0.702)), gold=0.690)
    assert "gold of this run: 0.690 [0.660, 0.720]" in lines
    assert "gold of the last run in this folder: 0.702 [0.672, 0.732]" in lines
    assert "model:  models:/policy/2" in lines
    assert not any(line.startswith("report:") for line in lines)


def test_a_candidate_that_was_not_offered(told: Any) -> None:
    assert "NOT OFFERED for promotion: the champion stays as it is (--no-promotion)" in told(Ending("abc", model=MODEL))
    assert "model:  artifacts/selection/policy" in told(Ending("abc", model=MODEL))
    assert "model:  not registered, and gone with the clone; DVC's cache has it" in told(Ending("abc"))


def test_on_a_server_the_run_has_an_address_there(told: Any, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = get_run(run_id)
    monkeypatch.setattr(history, "get_run", lambda _: kept)
    monkeypatch.setattr(tracking_store, "tracking_uri", lambda: "https://mlflow.example/")
    monkeypatch.setattr(tracking_store, "experiment_id", lambda: "7")
    assert (
        told(Ending(run_id, PROMOTED))[-1]
        == f"https://mlflow.example/#/experiments/7/runs/{run_id}?workflowType=machine_learning"
    )


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [
        (PROMOTED, "green"),
        (Verdict("already champion", "policy", 1, "the SFT policy"), "green"),
        (REFUSED, "red"),
        (Verdict("already refused", "policy", 2, "policy version 1", (FELL,)), "red"),
        (None, "yellow"),
    ],
)
def test_the_verdict_has_the_colour_of_what_it_means(verdict: Verdict | None, colour: str) -> None:
    for form in verdict_text(verdict).forms:
        assert isinstance(form, Text) and Style.parse(str(form.style)) == Style(bold=True, color=colour)
