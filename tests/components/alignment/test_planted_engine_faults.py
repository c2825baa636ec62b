"""An engine of rollouts elsewhere with faults that no curve shows: each stops the cycle, and what was finished is kept.

A stand-in takes vLLM's place; the real one is asked in tests/components/vllm.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted import Stopped
from vllm_stand_in import Served

from components.artifacts import read_json
from components.config import Params
from components.errors import ConfigError
from components.place import Place
from components.stages import perform
from components.tracking import store
from components.tracking.history import search

ChangeParams = Callable[..., Params]
MOVES = {"learning_rate": 0.01, "missing_eos": "none"}


def rows() -> dict[str, Any]:
    return {row["name"]: row for row in read_json(Place().alignment / "1" / "checks.json")}


def iterations_kept() -> int:
    [file] = Place().work.glob("alignment-1-*/curve.json")
    return len(read_json(file))


def told(name: str) -> float:
    """What the last run of a stage recorded of a check."""
    [*_, run] = sorted(search("tags.stage = 'alignment'"), key=lambda found: found.started)
    return float(store.client().get_metric_history(run.run_id, f"check/{name}")[-1].value)


def test_what_a_sound_engine_leaves_in_the_list_of_checks(
    world: Path, change_params: ChangeParams, served: Served
) -> None:
    server, generation = served(sleeps=True)
    perform("alignment", change_params(generation=generation, policy_gradient=MOVES), Place(), 1)
    found = rows()
    assert found["engine_weights"]["times"] == found["mismatch"]["times"] == 3
    assert found["engine_weights"]["largest"] < 1e-5 and found["mismatch"]["largest"] < 1e-8
    assert found["engine_move"]["times"] == 2 and found["engine_move"]["largest"] < 1e-3  # the first has none before
    assert "sampler" not in found and not server.asleep
    assert told("engine_move") <= found["engine_move"]["largest"]


def test_an_engine_that_keeps_its_weights(
    world: Path, change_params: ChangeParams, stopped: Stopped, served: Served
) -> None:
    """Of three updates it forgets the second: the first iteration is kept, and a sound server goes on with it."""
    server, generation = served("reload_forgotten", remembers=1)
    params = change_params(generation=generation, policy_gradient=MOVES)
    said = stopped()
    assert said.startswith("error: the engine has not the policy's weights")
    assert f"generation, after 2 updates of {server.url}\n" in said
    assert "typical gap between the engine's logprobs of some prompts and ours: at most 0.001 nats a token" in said
    assert told("engine_weights") > 1e-3 and iterations_kept() == 1
    server.faults.clear()
    perform("alignment", params, Place(), 1)
    assert len(read_json(Place().alignment / "1" / "curve.json")) == 3
    assert rows()["engine_weights"]["times"] == 3


def test_an_engine_whose_old_weights_are_near_enough(
    world: Path, change_params: ChangeParams, stopped: Stopped, served: Served
) -> None:
    """The bound alone would say nothing: it is that of half precision, say."""
    _, generation = served("reload_forgotten", remembers=1, max_probe_gap_nats_per_token=50.0)
    change_params(generation=generation, policy_gradient=MOVES)
    said = stopped()
    assert said.startswith("error: the engine still has weights of before")
    assert "share of the policy's move that the engine has not made: at most 0.5 of the move" in said
    assert told("engine_move") == pytest.approx(1.0) and iterations_kept() == 1


def test_an_adapter_that_is_not_served(
    adapted_world: Path, change_adapted_params: ChangeParams, stopped: Stopped, served: Served
) -> None:
    _, generation = served("adapter_forgotten")
    change_adapted_params(generation=generation)
    said = stopped()
    assert said.startswith("error: vLLM has not taken the adapter") and "1 of 1, policy-" in said
    assert told("engine_adapter") == 1.0 and not (Place().alignment / "1").exists()


def test_adapters_that_are_served(adapted_world: Path, change_adapted_params: ChangeParams, served: Served) -> None:
    server, generation = served()
    perform("alignment", change_adapted_params(generation=generation, policy_gradient=MOVES), Place(), 1)
    found = rows()
    assert found["engine_adapter"]["times"] == 3 and found["engine_adapter"]["largest"] == 0
    assert found["engine_weights"]["largest"] < 1e-4 and not server.adapters


def test_an_engine_that_samples_from_a_sharpened_distribution(
    world: Path, change_params: ChangeParams, stopped: Stopped, served: Served
) -> None:
    """Its weights are right: only what it says of its samples tells."""
    _, generation = served("sharpened")
    change_params(generation=generation)
    said = stopped()
    assert said.startswith("error: the engine samples from another policy than the one that trains")
    assert "ppo, iteration 1\n" in said and "mismatch_kl" in said and "at most 0.001 nats a token" in said
    assert told("mismatch") > 1e-3 > told("engine_weights")


def test_an_engine_that_dies_amid_a_cycle(
    world: Path, change_params: ChangeParams, stopped: Stopped, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, generation = served()
    params = change_params(generation=generation, policy_gradient=MOVES)
    real, updates = server.answer, iter(range(9))

    def dies_at_the_second_update(path: str, content: Any) -> tuple[int, Any]:
        is_dead = path == "/collective_rpc" and next(updates) == 1
        return (500, {"error": "EngineCore encountered an issue"}) if is_dead else real(path, content)

    monkeypatch.setattr(server, "answer", dies_at_the_second_update)
    said = stopped()
    assert said.startswith("error: vLLM fails at /collective_rpc") and "EngineCore encountered an issue" in said
    assert said.count("error: ") == 1 and iterations_kept() == 1
    perform("alignment", params, Place(), 1)
    assert len(read_json(Place().alignment / "1" / "curve.json")) == 3


class TestOnlineDpo:
    """It samples as PPO does, by the same engines."""

    def test_it_learns_from_what_another_engine_samples(
        self, world: Path, change_params: ChangeParams, served: Served
    ) -> None:
        _, generation = served(importance_weight_cap=None)
        online = {"learning_rate": 0.01, "missing_eos": "none"}
        perform("alignment", change_params(generation=generation, method="online_dpo", online_dpo=online), Place(), 1)
        curve = read_json(Place().alignment / "1" / "curve.json")
        assert curve[-1]["kl"] > 1e-3 and all(row["mismatch_kl"] < 1e-8 for row in curve)
        found = rows()
        assert found["engine_weights"]["times"] == found["mismatch"]["times"] == len(curve)
        assert found["ratio"]["largest"] < 1e-3

    def test_old_weights_stop_it(
        self, world: Path, change_params: ChangeParams, stopped: Stopped, served: Served
    ) -> None:
        _, generation = served("reload_forgotten", remembers=1, importance_weight_cap=None)
        change_params(generation=generation, method="online_dpo", online_dpo={"learning_rate": 0.01})
        assert stopped().startswith("error: the engine has not the policy's weights")
        assert iterations_kept() == 1

    def test_weights_of_tokens_are_refused(
        self, world: Path, change_params: ChangeParams, stopped: Stopped, served: Served
    ) -> None:
        _, generation = served()
        with pytest.raises(ConfigError, match="importance_weight_cap"):
            change_params(generation=generation, method="online_dpo")
