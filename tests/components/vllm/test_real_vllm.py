"""A real vLLM that is started on this machine's CPU: `make test-vllm`; skipped where it is not installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted import stopped  # noqa: F401
from real_vllm import MOVES, NEEDS_VLLM, ON_A_CPU, STARTED, engines_left, project  # noqa: F401

from components.artifacts import read_json
from components.config import Params
from components.errors import EnvironmentFault
from components.place import Place
from components.stages import perform

pytestmark = NEEDS_VLLM
SHAPE = {"hidden_size": 64, "intermediate_size": 64, "layers": 1, "attention_heads": 2}
ADAPTER = {"kind": "rslora", "rank": 4, "alpha": 8, "target_modules": "all-linear"}
ChangeParams = Callable[..., Params]


def before_alignment(params: Params) -> None:
    for stage in ("sft", "reward_model", "judge"):
        perform(stage, params, Place())


@pytest.mark.parametrize("trained_as", ["whole weights", "adapter"])
def test_ppo_learns_from_what_vllm_samples(
    project: Path,  # noqa: F811
    change_params: ChangeParams,
    trained_as: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model: dict[str, Any] = {"scratch": SHAPE}
    if trained_as == "adapter":
        model = {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny", "adapter": ADAPTER}
    params = change_params(language_model=model, generation=STARTED, policy_gradient=MOVES)
    with caplog.at_level(logging.INFO, logger="proximal"):
        before_alignment(params)
        perform("alignment", params, Place(), 1)
    print(*(line for line in caplog.messages if "ppo" in line), sep="\n")
    curve = read_json(Place().alignment / "1" / "curve.json")
    assert len(curve) == 3 and curve[-1]["kl"] > 0.05  # it has moved, and so there was something to bring
    for row in curve:  # float32 in both engines: what is left is the order of sums
        assert row["engine_gap"] < 1e-4 and row["mismatch_max"] < 1e-3 and row["mismatch_kl"] < 1e-6
        assert row["importance_weight"] == pytest.approx(1.0, abs=1e-4)
    checks = {row["name"]: row for row in read_json(Place().alignment / "1" / "checks.json")}
    print(*checks.values(), sep="\n")
    assert checks["engine_weights"]["times"] == checks["mismatch"]["times"] == 3
    assert checks["engine_move"]["times"] == 2 and checks["engine_move"]["largest"] < 1e-2
    assert checks.get("engine_adapter", {"times": 0})["times"] == (3 if trained_as == "adapter" else 0)
    assert not engines_left()
    assert not list(Place().work.glob("*.engine"))


def test_one_that_cannot_start_is_told_by_its_last_lines(
    project: Path,  # noqa: F811
    change_params: ChangeParams,
    stopped: Callable[..., str],  # noqa: F811
) -> None:
    """An option that it does not know; more memory than there is; sleep, which it has on GPUs alone."""
    model = {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny"}
    before_alignment(change_params(language_model=model, policy_gradient=MOVES))
    for changes, says in (
        ({"arguments": ["--no-such-option"]}, "--no-such-option"),
        ({"environment": ON_A_CPU | {"VLLM_CPU_KVCACHE_SPACE": "100000"}}, "is less than requested memory for kv"),
    ):
        change_params(language_model=model, policy_gradient=MOVES, generation=STARTED | changes)
        said = stopped()
        print(said)
        assert said.startswith("error: vLLM does not start") and says in said and "server.log" in said
        assert said.count("what to do:") == 1 and not engines_left() and not (Place().alignment / "1").exists()
    params = change_params(language_model=model, policy_gradient=MOVES, generation=STARTED | {"sleeps": True})
    with pytest.raises(EnvironmentFault, match="vLLM does not start") as caught:  # which the launcher refuses before
        perform("alignment", params, Place(), 1)
    print(caught.value)
    assert "leep" in caught.value.found
