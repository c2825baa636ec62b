"""A cycle that was killed or failed, and is run again: it goes on to the same bytes, or begins anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.alignment.policy_gradient.update import Updater
from components.artifacts import read_jsonl, write_jsonl
from components.config import Params, load_params
from components.digests import digest
from components.errors import DataError
from components.place import Place
from components.stages import perform
from components.tracking import store
from components.tracking.history import search

ROOT = Path(__file__).resolve().parents[3]
ChangeParams = Callable[..., Params]


def start_stage(*arguments: str) -> subprocess.Popen[str]:
    """`python -m components.launch ...` in the working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "components.launch", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished_iterations() -> int:
    """How many iterations the checkpoint in the work folder has."""
    for file in Place().work.glob("alignment-1-*/state/progress.json"):
        return int(json.loads(file.read_text())["iteration"])
    return 0


def test_a_killed_cycle_resumes_to_the_same_bytes(world: Path, change_params: ChangeParams) -> None:
    """A process killed as by the operating system, at some moment after its first checkpoint."""
    params = change_params(ppo={"iterations_per_cycle": 8})
    process = start_stage("alignment", "--cycle", "1")
    deadline = time.monotonic() + 90
    while finished_iterations() < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    assert 2 <= finished_iterations() < 8 and not (Place().alignment / "1").exists()
    perform("alignment", params, Place(), 1)
    resumed = digest(Place().alignment / "1")
    shutil.rmtree(Place().alignment)
    perform("alignment", params, Place(), 1)
    assert digest(Place().alignment / "1") == resumed


def test_a_resumed_cycle_tells_of_the_whole_of_it(world: Path, change_params: ChangeParams) -> None:
    params = change_params(ppo={"iterations_per_cycle": 4})
    work_before, real = set(Place().work.glob("*")), Updater.update

    def stops_in_the_third(updater: Any, *arguments: Any) -> Any:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real(updater, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Updater, "update", stops_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            perform("alignment", params, Place(), 1)
    [record] = Place().work.glob("alignment-1-*.json")
    content = json.loads(record.read_text())
    content["seconds"]["2"] += 1000.0  # as if the first part had taken that long
    record.write_text(json.dumps(content))
    perform("alignment", params, Place(), 1)
    [*_, killed, whole] = sorted(search("tags.stage = 'alignment'"), key=lambda found: found.started)
    assert (killed.status, whole.status) == ("KILLED", "FINISHED")
    assert 1000.0 < whole.metrics["cost/seconds"] < 1500.0
    points = store.client().get_metric_history(whole.run_id, "train/reward")
    curve = json.loads((Place().alignment / "1" / "curve.json").read_text())
    assert [(point.step, point.value) for point in points] == [(row["iteration"], row["reward"]) for row in curve]
    assert set(Place().work.glob("*")) == work_before


def test_interrupted_work_of_another_content_is_told_of_and_goes_with_success(
    world: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    Place().alignment.write_text("in the way")
    with pytest.raises(OSError):
        perform("alignment", change_params(ppo={"gamma": 0.9}), Place(), 1)
    [folder] = (path for path in Place().work.iterdir() if path.is_dir())
    Place().alignment.unlink()
    with caplog.at_level("WARNING", logger="proximal"):
        perform("alignment", change_params(), Place(), 1)
    [told] = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert told.startswith(f"{folder} holds 3 iterations of cycle 1 ") and "another ppo.gamma." in told
    assert not list(Place().work.iterdir())


def test_an_interrupted_cycle_of_other_params_is_not_gone_on_with(world: Path, change_params: ChangeParams) -> None:
    changed = change_params(ppo={"gamma": 0.9})
    perform("alignment", changed, Place(), 1)
    expected = digest(Place().alignment / "1")
    shutil.rmtree(Place().alignment)
    Place().alignment.write_text("in the way")
    with pytest.raises(OSError):  # at the very end: the checkpoint of the last iteration stays
        perform("alignment", change_params(), Place(), 1)
    assert finished_iterations() == 3
    Place().alignment.unlink()
    perform("alignment", changed, Place(), 1)
    assert digest(Place().alignment / "1") == expected


def test_an_interrupted_cycle_of_other_inputs_is_not_gone_on_with(world: Path) -> None:
    params, source = load_params(Place().params), Place().clean / "prompts_train.jsonl"
    rows = read_jsonl(source)
    write_jsonl(source, rows[1:])
    perform("alignment", params, Place(), 1)
    expected = digest(Place().alignment / "1")
    shutil.rmtree(Place().alignment)
    write_jsonl(source, rows)
    Place().alignment.write_text("in the way")
    with pytest.raises(OSError):
        perform("alignment", params, Place(), 1)
    Place().alignment.unlink()
    write_jsonl(source, rows[1:])
    perform("alignment", params, Place(), 1)
    assert digest(Place().alignment / "1") == expected


def test_a_failed_cycle_leaves_the_old_result(world: Path) -> None:
    params = load_params(Place().params)
    perform("alignment", params, Place(), 1)
    expected = digest(Place().alignment / "1")
    validation = Place().clean / "prompts_validation.jsonl"
    write_jsonl(validation, [{"id": "p", "prompt": "Where is the station?", "kind": "known"}])
    with pytest.raises(DataError, match="station"):  # the rubric knows no such thing
        perform("alignment", params, Place(), 1)
    assert digest(Place().alignment / "1") == expected
    assert {path.name for path in Place().alignment.iterdir()} == {"1"}
