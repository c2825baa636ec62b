"""Two ranks of ours and one engine elsewhere: the first speaks with it, for all."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from launched import TWO, ChangeParams
from vllm_stand_in import Served

from components.artifacts import read_json
from components.place import Place
from components.processes import free_port
from components.stages import perform

MOVES = {"learning_rate": 0.01, "missing_eos": "none"}
Start = Callable[..., subprocess.Popen[str]]


def asked(server: object) -> list[tuple[str, int]]:
    """What it was asked, but for addresses of files."""
    found = getattr(server, "asked")  # noqa: B009
    return sorted((path, (content or {}).get("seed", 0)) for path, content, _ in found if path != "/openapi.json")


def test_two_ranks_ask_once_for_all_and_learn_the_same(
    world: Path, change_params: ChangeParams, start: Start, served: Served
) -> None:
    """Whole weights are brought once an iteration, each rollout is asked for once, and scattered."""
    server, generation = served()
    perform("alignment", change_params(generation=generation, policy_gradient=MOVES), Place(), 1)
    one, of_one = read_json(Place().alignment / "1" / "curve.json"), asked(server)
    shutil.rmtree(Place().alignment)
    server.asked.clear()
    change_params(generation=generation, policy_gradient=MOVES, compute=TWO)
    process = start("alignment", "--cycle", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    two = read_json(Place().alignment / "1" / "curve.json")
    # the launcher looks at the server before it starts ranks, as the first of them does
    of_launcher = [("/v1/models", 0), ("/version", 0)]
    assert asked(server) == sorted([*of_one, *of_launcher])
    assert len([path for path, seed in of_one if seed]) == 3 * 8
    for row, of_one_process in zip(two, one, strict=True):
        assert row == pytest.approx(of_one_process, rel=1e-3, abs=1e-5)
    checked = {row["name"]: row["times"] for row in read_json(Place().alignment / "1" / "checks.json")}
    assert checked["engine_weights"] == 3 and checked["engine_move"] == 2 and checked["mismatch"] == 3


def test_nobody_at_the_address_is_seen_before_anything_is_loaded(
    world: Path, change_params: ChangeParams, start: Start, served: Served
) -> None:
    _, generation = served()
    change_params(generation=generation | {"url": f"http://127.0.0.1:{free_port()}"})
    process = start("alignment", "--cycle", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2 and errors.startswith("error: vLLM does not answer"), errors
    assert not list(Place().work.glob("alignment-1-*"))


def test_a_fault_that_the_first_rank_finds_ends_both(
    world: Path, change_params: ChangeParams, start: Start, served: Served
) -> None:
    _, generation = served("reload_forgotten", remembers=1)
    change_params(generation=generation, policy_gradient=MOVES, compute=TWO)
    process = start("alignment", "--cycle", "1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2 and errors.count("error: ") == 1, errors
    assert "error: the engine has not the policy's weights" in errors
    [kept] = Place().work.glob("alignment-1-*/curve.json")
    assert len(read_json(kept)) == 1
