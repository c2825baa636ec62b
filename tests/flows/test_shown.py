"""What Prefect's pages show: names, tags, progress, the result, and a graph without edges that say nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tiny_project import Tiny

from components.interface.terminal import Ending
from components.promotion.verdict import Verdict

# Two outputs: one that follows the data, and one that never changes.
TWO = """
import os
from pathlib import Path

Path(os.environ["PROXIMAL_STATUS_FILE"]).write_text("0")
Path("a.side").write_text(Path("data/rows").read_text())
Path("a.out").write_text("the same")
with open("log.jsonl", "a") as log: log.write('{"stage": "a", "event": "begin"}\\n')
"""


def client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def artifacts_of(flow_run_id: Any) -> dict[str, Any]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    of_the_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with client() as api:
        return {found.key: found for found in api.read_artifacts(artifact_filter=of_the_run)}


def run_of(state: Any) -> Any:
    with client() as api:
        return api.read_flow_run(state.state_details.flow_run_id)


def test_a_run_is_named_by_what_it_is(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={})
    commit = tiny.commit()
    run = run_of(run_flow())
    assert run.name.startswith("ppo seed 1 ") and commit.startswith(run.name.removeprefix("ppo seed 1 "))
    assert {"ppo", "seed 1"} <= set(run.tags)

    run = run_of(run_flow(overrides={"method": "dpo", "seed": 3, "sft.epochs": 1}))
    words = run.name.split()
    assert words[:3] == ["dpo", "seed", "3"] and commit.startswith(words[3]) and words[4:] == ["sft.epochs=1"]
    assert {"dpo", "seed 3"} <= set(run.tags)


def test_progress_counts_the_stages_that_are_done(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={}, b={"needs": ["a"]})
    state = run_flow()
    assert artifacts_of(state.state_details.flow_run_id)["stages"].data == 100.0
    tiny.stages(a={}, b={"needs": ["a"], "status": 1}, c={"needs": ["b"]}, d={"needs": ["c"]})
    state = run_flow()
    assert state.is_failed()
    assert artifacts_of(state.state_details.flow_run_id)["stages"].data == 25.0


def test_the_result_stands_at_the_end(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={})
    state = run_flow()
    result = artifacts_of(state.state_details.flow_run_id)["result"]
    assert result.description == "Not offered for promotion"
    assert state.result().ending.run_id in result.data


def test_a_result_has_the_verdict_its_figures_and_the_report(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    from flows import shown

    made: dict[str, str] = {}
    monkeypatch.setattr(shown, "create_markdown_artifact", lambda text, **more: made.update(more, text=text))
    side = {"gold": {"mean": 0.5, "low": 0.4, "high": 0.6}, "kl": {"mean": 1.0, "low": 0.9, "high": 1.1}}
    gain = {"gold": {"mean": 0.2, "low": 0.1, "high": 0.3}, "kl": {"mean": 1.0, "low": 0.9, "high": 1.1}}
    win_rate = {"mean": 0.7, "low": 0.6, "high": 0.8}
    evaluation = {"sft": side, "candidate": side, "difference": gain, "win_rate": win_rate}
    verdict = Verdict("refused", "policy", 3, "the SFT policy", ("it is too long",))
    ending = Ending("abc", verdict, warnings=["it does not end"], report=Path("artifacts/promotion/report.html"))
    shown.show_result(evaluation, ending, Path("/project"))
    assert made["description"].startswith("REFUSED: policy version 3 stays a candidate, because it is too long")
    lines = made["text"].splitlines()
    assert "- warning: it does not end" in lines
    (gold,) = (line for line in lines if line.startswith("| Gold"))
    assert "0.500 [0.400, 0.600]" in gold and "+0.200 [+0.100, +0.300]" in gold
    assert "- report: `/project/artifacts/promotion/report.html`" in lines
    assert any("abc" in line for line in lines)


def test_an_edge_that_follows_from_others_is_left_out_and_what_it_carried_is_not_lost(
    tiny: Tiny, run_flow: Callable[..., Any]
) -> None:
    """`c` reads what `a` made and what `b` made of it; when only the former has changed, `c` still has to run."""
    from flows.graph import read_stages

    tiny.stages(b={"needs": ["a.out"]}, c={"needs": ["a.side", "b"]})
    (tiny.folder / "two.py").write_text(TWO)
    (tiny.folder / ".gitignore").open("a").write("*.side\n")
    described = YAML(typ="safe").load(tiny.folder / "dvc.yaml")
    described["stages"]["a"] = {"cmd": "python two.py", "deps": ["data/rows"], "outs": ["a.out", "a.side"]}
    YAML().dump(described, tiny.folder / "dvc.yaml")
    assert {stage.name: stage.upstream for stage in read_stages(tiny.folder)} == {
        "data.dvc": (),
        "a": ("data.dvc",),
        "b": ("a",),
        "c": ("b",),
    }
    run_flow()
    (tiny.folder / "data" / "rows").write_text("1\n2\n")
    assert run_flow().result().stages == {"data.dvc": "pinned", "a": "ran", "b": "confirmed", "c": "ran"}
    assert tiny.began() == ["a", "b", "c", "a", "c"]


def test_a_run_links_to_mlflows_server(monkeypatch: pytest.MonkeyPatch, prefect_api: str, store: str) -> None:
    from prefect import flow

    from components.tracking import store as tracking_store
    from flows.shown import show_links

    @flow
    def shows() -> None:
        show_links("abc", "#/experiments/7/runs/def/artifacts/report.html?w")

    assert artifacts_of(shows(return_state=True).state_details.flow_run_id) == {}  # a file: no server has its pages
    monkeypatch.setattr(tracking_store, "tracking_uri", lambda: "http://me:secret@host.example:5000/")
    monkeypatch.setattr(tracking_store, "experiment_id", lambda: "7")
    links = artifacts_of(shows(return_state=True).state_details.flow_run_id)
    assert "(http://host.example:5000/#/experiments/7/runs/abc?" in links["mlflow"].data
    assert "(http://host.example:5000/#/experiments/7/runs/def/artifacts/report.html?w)" in links["report"].data
