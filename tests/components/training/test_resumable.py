"""Fits that were interrupted go on: to the same bytes, told of as one, and not with what is not theirs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import Params
from components.digests import digest
from components.errors import ConfigError, TrainingError
from components.place import Place
from components.stages import perform
from components.tracking import store
from components.tracking.history import search
from components.training import resumable
from components.training.step import OptimizerStep
from components.work_folder import KEPT_VARIABLE, remove_all

ChangeParams = Callable[..., Params]


@pytest.fixture(autouse=True)
def at_every_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of a tiny world take no two seconds."""
    monkeypatch.setattr(resumable, "_SECONDS_BETWEEN", 0.0)


def stopped_at(step: int, stage: str, params: Params) -> None:
    """Perform a stage that is interrupted in its step of that number, from 0, over all its fits."""
    real, taken = OptimizerStep.__call__, 0

    def stops(self: OptimizerStep, *arguments: Any, **more: Any) -> dict[str, float]:
        nonlocal taken
        if taken == step:
            raise KeyboardInterrupt
        taken += 1
        return real(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OptimizerStep, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            perform(stage, params, Place())


def steps_done() -> dict[str, int]:
    """By the name of the fit, what its checkpoint has."""
    return {
        file.parent.name.rpartition("-")[0]: len(json.loads(file.read_text()))
        for file in Place().work.glob("*/curve.json")
    }


@pytest.mark.parametrize(
    ("stage", "step", "left", "curves"),
    [
        ("sft", 33, {"sft": 33}, ["train/loss"]),
        ("reward_model", 20, {"reward_model": 20}, ["train/loss"]),
        ("reward_model", 55, {"reward_model": 40, "reward_model_2": 14}, ["train/loss", "train/loss_2"]),
        ("judge", 0, {}, ["train/loss"]),
    ],
)
def test_an_interrupted_fit_goes_on_to_the_same_bytes(
    world: Path,
    change_params: ChangeParams,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    step: int,
    left: dict[str, int],
    curves: list[str],
) -> None:
    """66 steps of SFT, a checkpoint after every third; 40 of a scorer, after every second."""
    changes = {"epochs": 33 if stage == "sft" else 40, "batch_size": 8, "microbatch_size": 4}
    params = change_params(**{stage: changes | ({"members": 2} if len(curves) == 2 or step == 20 else {})})
    work_before = set(Place().work.glob("*"))
    perform(stage, params, Place())
    out = Path("artifacts") / stage
    unbroken, whole = digest(out), search(f"tags.stage = '{stage}'")[0]
    shutil.rmtree(out)
    stopped_at(step, stage, params)
    assert steps_done() == left and not out.exists()
    for file in Place().work.glob(f"{stage}-*/as_stored.json"):
        told = json.loads(file.read_text())
        file.write_text(json.dumps({**told, "seconds": told["seconds"] + 1000.0}))  # as if it had taken that long
    caplog.clear()
    with caplog.at_level("INFO", logger="proximal"):
        perform(stage, params, Place())
    assert digest(out) == unbroken
    lines = [record.getMessage() for record in caplog.records if "goes on after" in record.getMessage()]
    assert lines == [f"{name}: goes on after step {done}" for name, done in left.items()]
    again, killed = search(f"tags.stage = '{stage}'")[:2]
    assert (killed.status, again.status) == ("KILLED", "FINISHED")
    for curve in curves:
        points, expected = (store.client().get_metric_history(run.run_id, curve) for run in (again, whole))
        assert [(point.step, point.value) for point in points] == [(point.step, point.value) for point in expected]
        assert [point.step for point in points] == list(range(66 if stage == "sft" else 40))
    assert (again.metrics["cost/seconds"] > 1000.0) == bool(left)
    assert set(Place().work.glob("*")) == work_before


def test_what_was_made_is_kept_until_it_is_safe(
    world: Path, change_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC deletes the outputs of a stage that it did not get to commit: the stage then has nothing to train again."""
    monkeypatch.setenv(KEPT_VARIABLE, "1")
    params = change_params(reward_model={"members": 2})
    perform("reward_model", params, Place())
    out = Place().reward_model
    made = digest(out)
    shutil.rmtree(out)
    monkeypatch.setattr(OptimizerStep, "__call__", None)  # not called
    perform("reward_model", params, Place())
    assert digest(out) == made
    assert set(steps_done()) == {"reward_model", "reward_model_2"}
    remove_all(Place().work, "judge")
    assert set(steps_done()) == {"reward_model", "reward_model_2"}
    remove_all(Place().work, "reward_model")
    assert list(Place().work.iterdir()) == []


def test_other_params_and_other_rows_begin_anew(
    world: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"epochs": 10, "batch_size": 8, "microbatch_size": 4}
    perform("sft", change_params(sft=changes), Place())
    expected = digest(Place().sft)
    stopped_at(5, "sft", change_params(sft={**changes, "learning_rate": 0.01}))
    with caplog.at_level("WARNING", logger="proximal"):
        perform("sft", change_params(sft=changes), Place())
    assert digest(Place().sft) == expected
    (told,) = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert "holds 5 steps and is not used: it was made with another sft.learning_rate." in told
    assert not list(Place().work.iterdir())


def test_a_checkpoint_that_was_changed_is_not_gone_on_with(world: Path, change_params: ChangeParams) -> None:
    params = change_params(sft={"epochs": 10, "batch_size": 8, "microbatch_size": 4})
    stopped_at(5, "sft", params)
    (file,) = Place().work.glob("sft-*/weights.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    file.write_bytes(content)
    with pytest.raises(TrainingError, match="would not go on") as caught:
        perform("sft", params, Place())
    assert caught.value.found == "other weights" and caught.value.where == str(file.parent)


def test_another_number_of_processes_goes_on_only_if_asked(world: Path, change_params: ChangeParams) -> None:
    changes: Any = {"sft": {"epochs": 10, "batch_size": 8, "microbatch_size": 4}}
    stopped_at(5, "sft", change_params(**changes))
    (record,) = Place().work.glob("sft-*.json")
    record.write_text(record.read_text().replace('"processes": 1', '"processes": 2'))
    (folder,) = (path for path in Place().work.iterdir() if path.is_dir())
    for path in (record, folder):
        path.rename(path.with_name(path.name.replace(folder.name, "sft-0123456789abcdef")))
    with pytest.raises(ConfigError, match=r"5 steps\n.*the 2 processes"):
        perform("sft", change_params(**changes), Place())
    perform("sft", change_params(**changes, compute={"reshard_checkpoints": True}), Place())
    assert not list(Place().work.iterdir())


def test_checkpoints_are_seldom_where_steps_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred steps of 0.1 s, each fifth is looked at: one after 2 s, 4 s, ... and one at the end."""
    clock = [0.0]
    monkeypatch.setattr(resumable, "_SECONDS_BETWEEN", 2.0)
    monkeypatch.setattr(resumable.time, "monotonic", lambda: clock[0])
    fit = object.__new__(resumable.Resumable)
    fit._written, fit._accelerator = 0.0, type("One", (), {"num_processes": 1})()
    due = []
    for done in range(1, 101):
        clock[0] = done / 10
        if fit.is_due(done, 100):
            due.append(done)
            fit._written = clock[0]
    assert due == [20, 40, 60, 80, 100]
    slow = [done for done in range(1, 8) if fit.is_due(done, 7)]
    assert slow == [7]  # a clock that stands still
