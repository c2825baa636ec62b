"""A run stops before the stage that would pass its budget, and says what it has spent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML
from tiny_project import Tiny

from components.config import Params, parse_params
from components.errors import ConfigError
from components.place import Place
from flows.budget import OverBudget, RunBudget
from flows.outcome import REFUSED

NONE = {"device_hours": None, "cost": None, "price_per_device_hour": None, "currency": None, "device": "cpu"}
# Stands for `proximal plan`: the folder is its own package `flows`, as a clone's is.
PLAN = """
import sys
from pathlib import Path

assert sys.argv[1:] == ["plan", "--json", "--device", "h200"], sys.argv
Path("asked").open("a").write("once\\n")
print(Path("plan.json").read_text())
"""


def params_with(tiny: Tiny, **budget: Any) -> Params:
    """Its params, written, with a budget."""
    file = Place(tiny.folder).params
    content = YAML(typ="safe").load(file)
    content["orchestration"]["budget"] = {**NONE, **budget}
    YAML().dump(content, file)
    return parse_params(content, "params.yaml")


def plan(tiny: Tiny, device_speed: bool = True, **seconds: float) -> None:
    """What plan will tell of stages; a third of the time is each part's."""
    package = tiny.folder / "flows"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(PLAN)
    names = {name: name.replace("_1", " 1") for name in seconds}
    found = [
        {"stage": names[name], "sampling": each / 3, "passing": each / 3, "training": each / 3, "total": each}
        for name, each in seconds.items()
    ]
    told = {"tokens": [{"stage": name} for name in seconds], "seconds": found if device_speed else []}
    (tiny.folder / "plan.json").write_text(json.dumps(told))


def test_the_stage_that_would_pass_it_does_not_begin(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(sft={}, judge={"needs": ["sft"]}, selection={"needs": ["sft"]}, evaluation={"needs": ["judge"]})
    plan(tiny, sft=3000, judge=3000, evaluation=3700)  # the last more than an hour, whatever the others have taken
    params_with(tiny, device_hours=1.0, device="h200")
    state = run_flow()
    assert state.name == REFUSED
    assert set(tiny.began()) == {"sft", "judge", "selection"}
    message = str(state.result(raise_on_failure=False))
    assert "stage evaluation: the stage would pass the budget of the run" in message
    assert "orchestration.budget.device_hours" in message and "would take 1.03 device-hours" in message
    assert (tiny.folder / "asked").read_text() == "once\n"

    params_with(tiny, device_hours=2.0, device="h200")  # what is done is kept: params of orchestration run nothing anew
    again = run_flow()
    assert again.is_completed(), again.message
    assert tiny.began()[-1] == "evaluation" and len(tiny.began()) >= 4


def test_a_policy_is_measured_within_it(tiny: Tiny, prefect_api: str) -> None:
    from flows.evaluate import evaluate

    tiny.stages(sft={}, reward_model={"needs": ["sft"]}, judge={"needs": ["sft"]}, evaluation={"needs": ["judge"]})
    plan(tiny, sft=60, reward_model=60, judge=60, evaluation=3601)
    params_with(tiny, device_hours=1.0, device="h200")
    state = evaluate(tiny.folder, "policy@champion", return_state=True)
    assert state.name == REFUSED
    assert set(tiny.began()) == {"sft", "reward_model", "judge"}
    assert "stage measurement: the stage would pass the budget" in str(state.result(raise_on_failure=False))


def test_spent_and_promised_hours_of_all_processes_count(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_with(tiny, cost=10.0, price_per_device_hour=2.5, currency="EUR", device="h200")  # 4 hours
    plan(tiny, sft=900, reward_model=1800, judge=1800, alignment_1=3600, evaluation=60)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = RunBudget(params, tiny.folder)
    budget._processes = 4
    with budget.of("data_validation"):
        now[0] += 720.0  # 0.2 hours, of one process
    with budget.of("sft"):  # a guess of 1 hour
        now[0] += 360.0  # 0.4
    with budget.of("reward_model"):  # 0.6 spent; 2 are promised
        with pytest.raises(OverBudget) as refusal, budget.of("judge"):  # 2 more
            raise AssertionError
        assert (
            "6.5 EUR are spent or promised" in refusal.value.found and "judge would take 5 EUR" in refusal.value.found
        )
        assert "at most 10 EUR" in refusal.value.expected and refusal.value.where.startswith(
            "orchestration.budget.cost"
        )
        now[0] += 900.0  # 1.0
    with budget.of("judge"):  # 1.6 + 2
        now[0] += 2160.0  # 2.4: more than it was to take
    for stage in ("selection", "evaluation", "alignment@1"):  # all is spent: not even what takes next to nothing
        with pytest.raises(OverBudget, match="budget"), budget.of(stage):
            raise AssertionError


def test_a_device_whose_speed_nobody_knows_is_refused(tiny: Tiny) -> None:
    params = params_with(tiny, device_hours=1.0, device="h200")
    plan(tiny, device_speed=False, sft=1)
    with pytest.raises(OverBudget) as refusal, RunBudget(params, tiny.folder).of("sft"):
        raise AssertionError
    assert refusal.value.where == "orchestration.budget.device in params.yaml"


def test_without_rows_a_stage_counts_once_it_has_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_with(tiny, device_hours=1.0, device="h200")
    plan(tiny)  # no tokens are known: the tokenizer is SFT's
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = RunBudget(params, tiny.folder)
    with budget.of("sft"):
        now[0] += 1800.0
    plan(tiny, judge=1801)
    with pytest.raises(OverBudget, match="budget"), budget.of("judge"):
        raise AssertionError


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        ({"device_hours": 1.0, "cost": 1.0, "price_per_device_hour": 1.0, "currency": "EUR"}, "cost"),
        ({"cost": 1.0, "currency": "EUR"}, "price_per_device_hour"),
        ({"cost": 1.0, "price_per_device_hour": 1.0}, "currency"),
        ({"device_hours": 1.0, "currency": "EUR"}, "currency"),
        ({"device_hours": 0.0}, "device_hours"),
    ],
)
def test_what_contradicts_itself_is_refused(tiny: Tiny, budget: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        params_with(tiny, **budget)
    assert f"orchestration.budget.{key}" in refusal.value.where
