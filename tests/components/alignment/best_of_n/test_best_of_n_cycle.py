"""Cycles of best of n as the stage runs them: larger choices, their KL, the same bytes twice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.alignment.best_of_n.learner import responses_of_cycle
from components.alignment.method import rows_of_iteration
from components.artifacts import read_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.digests import digest
from components.measuring.measure import FrozenModels, means, measure, measure_policy
from components.models.best_of_n import BestOfNPolicy
from components.models.loading import load_policy
from components.place import Place
from components.stages import perform

ChangeParams = Callable[..., Params]
FILES = ("checks.json", "curve.json", "metrics.json", "validation.jsonl")


def folder_of(cycle: int) -> Path:
    return Place().alignment / str(cycle)


@pytest.fixture
def params(world: Path, change_params: ChangeParams) -> Params:
    return change_params(method="best_of_n")


def test_every_cycle_chooses_among_more(params: Params) -> None:
    for cycle, n in ((1, 2), (2, 4)):
        perform("alignment", params, Place(), cycle)
        assert {path.name for path in folder_of(cycle).iterdir()} == {"policy", "state", *FILES}
        policy = folder_of(cycle) / "policy"
        assert read_json(policy / "best_of_n.json") == {"n": n}
        assert digest(policy / "scorer") == digest(Place().reward_model / "model")
        for file in (Place().sft / "policy").iterdir():
            assert digest(policy / file.name) == digest(file)
        (row,) = read_json(folder_of(cycle) / "curve.json")
        assert (row["cycle"], row["iteration"], row["n"]) == (cycle, cycle, n)
        assert (row["sampled_tokens"], row["trained_tokens"]) == (0, 0)
        validation = read_json(folder_of(cycle) / "metrics.json")["validation"]
        assert validation["kl"] == pytest.approx(math.log(n) - (n - 1) / n, abs=1e-5)
    start, *cycles = (
        read_json(folder_of(1) / "metrics.json")["validation_start"],
        *(read_json(folder_of(cycle) / "metrics.json")["validation"] for cycle in (1, 2)),
    )
    # The prompts and the first responses are the same, so the best of more is at least as good.
    assert start["reward"] < cycles[0]["reward"] < cycles[1]["reward"]


def test_the_curve_tells_of_the_choice(params: Params) -> None:
    perform("alignment", params, Place(), 1)
    (row,) = read_json(folder_of(1) / "curve.json")
    prompts = rows_of_iteration(
        read_rows(Place().clean / "prompts_train.jsonl", Prompt), 4, 0, params.seed, "best_of_n/progress"
    )
    expected = means(
        measure_policy(folder_of(1) / "policy", Place().frozen, params.shared, prompts, 1, "best_of_n/progress")
    )
    for name in ("reward", "kl", "entropy", "response_tokens", "ended"):
        assert row[name] == pytest.approx(expected[name], abs=1e-6)
    assert not {"gold", "judge"} & set(row)


def test_two_runs_write_the_same_bytes_and_an_interrupted_one_goes_on(params: Params) -> None:
    perform("alignment", params, Place(), 1)
    expected = digest(Place().alignment)
    shutil.rmtree(Place().alignment)
    Place().alignment.write_text("in the way")
    with pytest.raises(OSError):  # at the very end: the checkpoint stays
        perform("alignment", params, Place(), 1)
    Place().alignment.unlink()
    assert len([path for path in Place().work.iterdir() if path.is_dir()]) == 1
    perform("alignment", params, Place(), 1)
    assert digest(Place().alignment) == expected
    assert not list(Place().work.iterdir())


def test_kl_adds_up_from_the_choice_and_the_policy_it_chooses_from(params: Params) -> None:
    """KL(best, reference) = KL(best, policy) + E_best[log policy - log reference]."""
    base: Any = load_policy(Place().sft / "policy")
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    frozen, prompts = (
        FrozenModels.load(Place().frozen, torch.device("cpu")),
        read_rows(Place().clean / "prompts_test.jsonl", Prompt),
    )
    scorer = frozen.reward_model.token_model
    assert scorer is not None
    (plain, one, four) = (
        measure(policy, frozen, params.shared, prompts, 3, "test")
        for policy in (base, BestOfNPolicy(base, scorer, 1), BestOfNPolicy(base, scorer, 4))
    )
    assert plain == one
    codec = frozen.codec
    for record in four:
        (prompt,) = codec.encode_prompts([record.prompt])
        (response,) = codec.encode_responses([record.response])
        if codec.decode([response])[0] != record.response or len(response) != record.response_tokens:
            continue  # its text does not give its tokens back

        def logprob(model: Any, prompt: list[int] = prompt, response: list[int] = response) -> float:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            return float(torch.distributions.Categorical(logits=logits).log_prob(torch.tensor(response)).sum())

        own = logprob(base) - logprob(frozen.reference)
        if record.kl == pytest.approx(math.log(4) - 3 / 4 + own, abs=1e-4):
            return
    raise AssertionError("no record's KL is that of its response")


def test_n_as_worked_by_hand(tiny_params: Any) -> None:
    settings = tiny_params(best_of_n={"first_n": 3, "growth": 4}).best_of_n
    assert [responses_of_cycle(settings, number) for number in (1, 2, 3)] == [3, 12, 48]
