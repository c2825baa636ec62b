"""Prompts whose responses all score alike give way to others: by hand, in real cycles, and in two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_cycles import Interruption

from components.alignment.method import other_rows
from components.alignment.policy_gradient.dynamic_sampling import draw_groups
from components.alignment.policy_gradient.rollouts import Rollouts
from components.artifacts import read_json
from components.config import Grpo, Params
from components.digests import digest
from components.engines.sampling import draw_uniforms
from components.passes.sequences import build_sequences
from components.place import Place
from components.scoring.scorer import PartScores
from components.seeding import generator
from components.stages import perform

ROOT = Path(__file__).resolve().parents[4]
ROUNDS = {"dynamic_sampling_rounds": 2, "missing_eos": "none"}
Scores = dict[int, list[tuple[float, float]]]


def rollouts_of(numbers: list[int], scores: list[float], ended: list[bool]) -> Rollouts:
    """Two responses of each prompt; prompt and response n are n tokens long, and all their tokens are n."""
    rows = [number for number in numbers for _ in range(2)]
    sequences = build_sequences([[row] * row for row in rows], [[row] * row for row in rows], pad_id=0)
    column = sequences.response_tokens.double()
    of_scores = torch.tensor(scores)
    parts = {"gold": PartScores(of_scores * 10, of_scores == 0)}
    others = [name for name in Rollouts._fields if name not in ("sequences", "scores", "ended", "parts")]
    columns = {name: column * factor for factor, name in enumerate(others, start=1)}  # whatever is recorded of tokens
    return Rollouts(sequences=sequences, scores=of_scores, ended=torch.tensor(ended), parts=parts, **columns)


class Sampler:
    """Gives each prompt the next of its scores, and remembers what it was asked."""

    def __init__(self, scores: Scores, ended: dict[int, tuple[bool, bool]] | None = None) -> None:
        self._scores = {number: list(pairs) for number, pairs in scores.items()}
        self._ended = ended or {}
        self.asked: list[tuple[list[int], int]] = []

    def __call__(self, numbers: list[int], sampling_round: int) -> Rollouts:
        self.asked.append((numbers, sampling_round))
        scores = [score for number in numbers for score in self._scores[number].pop(0)]
        return rollouts_of(numbers, scores, [e for number in numbers for e in self._ended.get(number, (True, True))])


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., Grpo]:
    return lambda **changes: tiny_params(method="grpo", grpo=ROUNDS | changes).grpo  # type: ignore[return-value]


def test_each_new_group_takes_the_place_of_one_that_taught_nothing(settings: Any) -> None:
    """Prompts 1 and 3 score alike; 5 does so too, 6 does not and takes the place of 1; 4 does not help 3."""
    sampler = Sampler(
        {1: [(1.0, 1.0)], 2: [(0.0, 1.0)], 3: [(0.0, 0.0)], 5: [(2.0, 2.0)], 6: [(0.0, 3.0)], 4: [(1.0, 1.0)]}
    )
    found, figures = draw_groups(sampler, [1, 2, 3], [5, 6, 4], settings())
    assert sampler.asked == [([1, 2, 3], 0), ([5, 6], 1), ([4], 2)]
    expected = rollouts_of([6, 2, 3], [0.0, 3.0, 0.0, 1.0, 0.0, 0.0], [True] * 6)
    for name in set(Rollouts._fields) - {"parts"}:
        field, hand_made = getattr(found, name), getattr(expected, name)
        for column, expected_column in zip(field, hand_made, strict=True):
            assert torch.equal(column, expected_column)
    assert torch.equal(found.parts["gold"].values, torch.tensor([0.0, 30.0, 0.0, 10.0, 0.0, 0.0]))
    assert found.parts["gold"].is_none.tolist() == [True, False, True, False, True, True]
    assert figures == {
        "sampling_rounds": 2,
        "prompts_replaced": 1,
        "prompts_left_alike": 1,
        "reward_first_drawn": 0.5,
        "sampled_tokens": 2 * (1 + 2 + 3 + 5 + 6 + 4),
    }


def test_rows_that_nobody_keeps_leave_no_padding(settings: Any) -> None:
    sampler = Sampler({7: [(1.0, 1.0)], 1: [(0.0, 1.0)], 2: [(0.0, 1.0)]})
    found, _ = draw_groups(sampler, [7, 1], [2], settings())
    assert found.sequences.response_tokens.tolist() == [[2, 2], [2, 2], [1, 0], [1, 0]]
    assert found.sequences.prompt_tokens.tolist() == [[2, 2], [2, 2], [0, 1], [0, 1]]
    assert found.old_logprobs.shape == (4, 2)


def test_where_all_differ_nothing_more_is_asked(settings: Any) -> None:
    sampler = Sampler({1: [(1.0, 0.0)], 2: [(0.0, 1.0)]})
    _, figures = draw_groups(sampler, [1, 2], [3], settings())
    assert len(sampler.asked) == 1
    assert [figures[name] for name in ("sampling_rounds", "prompts_replaced", "prompts_left_alike")] == [0, 0, 0]


def test_where_there_are_too_few_others_they_are_asked_again(settings: Any) -> None:
    of_third = [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 2.0)]
    sampler = Sampler({1: [(1.0, 1.0)], 2: [(2.0, 2.0)], 3: of_third})
    found, figures = draw_groups(sampler, [1, 2], [3], settings())
    assert sampler.asked == [([1, 2], 0), ([3, 3], 1), ([3, 3], 2)]
    assert found.scores.tolist() == [0.0, 1.0, 0.0, 2.0]
    assert (figures["prompts_replaced"], figures["prompts_left_alike"]) == (2, 0)


@pytest.mark.parametrize(
    ("changes", "teaches"),
    [
        ({}, [True, True, False]),
        # -3 in place of all scores of responses that did not end: prompt 1 has (1, -3), 2 has (-3, -3), 3 has (1, 1)
        ({"missing_eos": "replace", "missing_eos_value": -3.0}, [True, False, False]),
        ({"mask_truncated": True}, [True, False, False]),  # of prompt 2 nothing is learned
    ],
    ids=str,
)
def test_scores_count_as_they_are_after_the_rules_for_length(settings: Any, changes: Any, teaches: list[bool]) -> None:
    scores: Scores = {1: [(1.0, 2.0)], 2: [(0.0, 1.0)], 3: [(1.0, 1.0)], 4: [(0.0, 0.0)] * 3}
    sampler = Sampler(scores, {1: (True, False), 2: (False, False)})
    draw_groups(sampler, [1, 2, 3], [4], settings(**changes, dynamic_sampling_rounds=1))
    assert len(sampler.asked[1][0]) == teaches.count(False)


def test_the_others_are_all_rows_in_an_order_of_each_iteration() -> None:
    found = other_rows(9, [4, 2, 4], 3, seed=1, stream="test")
    assert sorted(found) == list(range(9)) and set(found[-2:]) == {2, 4}
    assert found == other_rows(9, [4, 2, 4], 3, seed=1, stream="test")
    assert found != other_rows(9, [4, 2, 4], 4, seed=1, stream="test")


def test_a_longer_batch_begins_with_the_same_uniforms() -> None:
    """So that what a process answers in vain, to have as much as the others, changes nothing."""
    short, long = (draw_uniforms(count, 6, generator(1, "test")) for count in (5, 8))
    assert torch.equal(long[:5], short)


# In the tiny world responses seldom end, so that with missing_eos replace many groups score alike.
TIES = {"dynamic_sampling_rounds": 2, "missing_eos": "replace"}


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_an_interrupted_cycle_draws_the_same_again(cycle: Any, tiny_params: Any, method: str) -> None:
    params = tiny_params(method=method, **{method: TIES})
    expected = cycle(params, "whole")
    with pytest.raises(Interruption):
        cycle(params, "work", stop_in=2)
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))
    assert sum(row["prompts_replaced"] for row in expected) > 0
    for row in expected:
        assert row["prompts_left_alike"] == 0 or row["sampling_rounds"] == 2
        assert row["sampled_tokens"] > 8 * row["response_tokens"] or row["sampling_rounds"] == 0
    plain = cycle(tiny_params(method=method, **{method: {"missing_eos": "replace"}}), "plain")
    assert "prompts_replaced" not in plain[0]
    assert expected[0]["reward_first_drawn"] == plain[0]["reward"]  # the first draw is as it was without


def test_two_processes_draw_what_one_draws(world: Path, tmp_path: Path, change_params: Any) -> None:
    """Groups of two in rounds of any number of prompts, among them odd ones of three responses each."""
    changes = {"method": "grpo", "grpo": TIES | {"rollouts_per_iteration": 12, "responses_per_prompt": 3}}
    changes["grpo"] |= {"iterations_per_cycle": 2}
    perform("alignment", change_params(**changes), Place(), 1)
    folder = Place().alignment / "1"
    one = Path(shutil.copytree(folder, tmp_path / "one"))
    shutil.rmtree(folder)
    change_params(**changes, compute={"accelerate_config": "infra/accelerate/cpu_two_processes.yaml"})
    command = [sys.executable, "-m", "components.launch", "alignment", "--cycle", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    curves = [read_json(each / "curve.json") for each in (folder, one)]
    for row, row_of_one in zip(*curves, strict=True):
        assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-3)
    assert sum(row["prompts_replaced"] for row in curves[1]) > 0
