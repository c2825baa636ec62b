"""Three real pipelines, tiny ones, as a person finds them: MLflow's own pages, in a browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from recorded_runs import ROOT, runs

from components.artifacts import write_json
from components.place import Place
from components.stages import perform
from components.tracking.runs import PARENT_VARIABLE
from flows.record import recorded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = {"ppo lr=1e-3 s1", "dpo s1", "q_learning s1"}
ONE_CYCLE = {"cycles": {"1": {"start": "artifacts/sft"}}, "promotion": {"min_prompts": 2}}
STAGES = (("alignment", 1), ("selection", None), ("evaluation", None), ("promotion", None))


@pytest.fixture(scope="module")
def project(
    trained_world: Path, change_params: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A repository in which PPO with another learning rate, DPO and Q-learning have run, each from alignment on."""
    folder = Path(shutil.copytree(trained_world, tmp_path_factory.mktemp("pages") / "world"))
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("RANK", raising=False)
        change_params(**ONE_CYCLE)
        shutil.copy(ROOT / "dvc.yaml", folder)
        write_json(Place().data_validation / "report.json", {"prompts": {"rows": 18}, "warnings": 0, "checks": []})
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-q", "-m", "start"]):
            subprocess.run(["git", *identity, *command], check=True)
        for changes in ({"ppo": {"learning_rate": 1e-3}}, {"method": "dpo"}, {"method": "q_learning"}):
            params = change_params(**ONE_CYCLE, **changes)
            with recorded(folder, "flow of a test") as run:
                patch.setenv(PARENT_VARIABLE, run.run_id)
                for stage, cycle in STAGES:
                    perform(stage, params, Place(), cycle)
                    run.stages[stage if cycle is None else f"{stage}@{cycle}"] = "ran"
            for made in (Place().alignment, Place().selection, Place().evaluation):
                shutil.rmtree(made)
        yield folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """What `proximal ui` tells a person to open, with its server up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", "--port", str(port)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.stderr.readline()  # type: ignore[union-attr]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.3)
        assert said.startswith(f"MLflow: http://127.0.0.1:{port}/")
        yield said.split()[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1800, "height": 1000})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


def parents() -> dict[str, Any]:
    return {run.info.run_name: run for run in runs("tags.stage = 'pipeline'")}


def test_the_address_that_is_told_shows_every_pipeline_by_what_counts(project: Path, address: str, page: Page) -> None:
    found = parents()
    assert found.keys() == NAMES
    page.goto(address)
    for name in NAMES:
        page.get_by_role("link", name=name, exact=True).wait_for()
    page.get_by_role("columnheader", name="decision").first.wait_for()
    headers = list(dict.fromkeys(page.get_by_role("columnheader").all_inner_texts()))  # each is a cell within a cell
    assert headers[-5:] == ["eval/gold", "eval/judge", "eval/kl", "eval/win_rate", "decision"]
    text = page.inner_text("body")
    assert "Model registry" in text and "Evaluation runs" not in text, "these are the pages of model training"
    for run in found.values():
        assert run.data.tags["decision"] in ("promoted", "refused")
        for metric in ("gold", "judge", "kl", "win_rate"):
            assert f"{run.data.metrics[f'eval/{metric}']:.4f}".rstrip("0").rstrip(".") in text


def test_the_pipelines_are_compared(project: Path, address: str, page: Page) -> None:
    server, ids = address.partition("/#")[0], [run.info.run_id for run in parents().values()]
    quoted = ",".join(f'"{run_id}"' for run_id in ids)
    page.goto(f'{server}/#/compare-runs?runs=[{quoted}]&experiments=["1"]')
    for name in (*NAMES, "eval/gold", "eval/judge", "eval/kl", "eval/win_rate"):
        page.get_by_text(name, exact=True).first.wait_for()


def test_the_page_of_a_pipeline_says_what_came_of_it(project: Path, address: str, page: Page) -> None:
    server, run = address.partition("/#")[0], parents()["dpo s1"]
    page.goto(f"{server}/#/experiments/1/runs/{run.info.run_id}?workflowType=machine_learning")
    page.get_by_text(run.data.tags["verdict"]).first.wait_for()
    text = page.inner_text("body")
    assert "in:artifacts" not in text and "process_pid" not in text
    assert text.index("eval/gold") < text.index("eval/judge") < text.index("gain/gold") < text.index("train/reward")
    page.get_by_text("Show more").first.click()
    with page.expect_popup() as report:
        page.get_by_role("link", name="Report").click()
    report.value.frame_locator("iframe").locator("h1").first.wait_for(timeout=60_000)
