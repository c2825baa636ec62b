"""Records of measured responses against plain Hugging Face forwards, one unpadded sequence at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components import paths
from components.alignment.policy_gradient.checkpoint import load_model
from components.artifacts import read_jsonl
from components.config import Data, Params
from components.measuring.measure import Record, Yardsticks, means, measure, measure_policy, rubric_of
from components.models.loading import load_policy
from components.worlds.helpdesk.rubric import score
from components.worlds.randomwalks.graph import make_graph

TEMPERATURE = 0.9


@pytest.fixture
def yardsticks(world: Path) -> Yardsticks:
    return Yardsticks.load(torch.device("cpu"))


@pytest.fixture
def prompts(world: Path) -> list[Record]:
    return read_jsonl(paths.CLEAN / "prompts_validation.jsonl")


@pytest.fixture
def params(tiny_params: Callable[..., Params]) -> Params:
    return tiny_params(measurement={"temperature": TEMPERATURE})


@pytest.fixture
def policy(world: Path) -> Any:
    """The SFT policy, moved a little away from it."""
    policy = load_policy(paths.SFT / "policy")
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    return policy


@pytest.fixture
def records(policy: Any, yardsticks: Yardsticks, params: Params, prompts: list[Record]) -> list[Record]:
    return measure(policy, yardsticks, params, prompts, 5, "validation")


@torch.no_grad()
def test_every_number_is_hugging_faces(
    records: list[Record], policy: Any, yardsticks: Yardsticks, params: Params, prompts: list[Record]
) -> None:
    """The tokens of a response cannot be had back from its text, so they are drawn once more."""
    from components.engines.generation import generate
    from components.engines.sampling import uniforms
    from components.seeding import generator

    codec = yardsticks.codec
    rows = codec.encode_prompts([row["prompt"] for row in prompts for _ in range(5)])
    numbers = uniforms(20, 6, generator(params.seed, "measurement", "validation"))
    sequences = generate(policy, codec, rows, numbers, temperature=TEMPERATURE, batch_size=20)

    def distribution(model: Any, tokens: list[int], start: int) -> torch.distributions.Categorical:
        logits = model(torch.tensor([tokens])).logits[0, start - 1 : -1]
        return torch.distributions.Categorical(logits=logits / TEMPERATURE)

    def scalar(model: Any, tokens: list[int]) -> float:
        config = model.classifier.config
        return (float(model.classifier(torch.tensor([tokens])).logits[0, 0]) - config.score_mean) / config.score_std

    for record, prompt, tokens, mask in zip(
        records, rows, sequences.response_tokens, sequences.response_mask, strict=True
    ):
        response = tokens[mask].tolist()
        whole, start = prompt + response, len(prompt)
        of_policy = distribution(policy, whole, start)
        of_reference = distribution(yardsticks.reference, whole, start)
        kl = (of_policy.log_prob(tokens[mask]) - of_reference.log_prob(tokens[mask])).sum()
        assert record["kl"] == pytest.approx(float(kl), abs=1e-4)
        assert record["entropy"] == pytest.approx(float(of_policy.entropy().mean()), abs=1e-5)
        assert record["reward"] == pytest.approx(scalar(yardsticks.reward_model, whole), abs=1e-5)
        assert record["judge"] == pytest.approx(scalar(yardsticks.judge, whole), abs=1e-5)
        assert record["response_tokens"] == len(response)
        assert record["ended"] == (response[-1] == codec.eos_id)
        assert record["response"] == codec.decode([response])[0]
    assert {record["ended"] for record in records} == {True, False}  # both kinds were tried


def test_a_record_holds_its_prompt_and_its_rubric(records: list[Record], prompts: list[Record]) -> None:
    assert [(record["prompt_id"], record["sample"]) for record in records] == [
        (row["id"], sample) for row in prompts for sample in range(5)
    ]
    for record in records:
        assert record["kind"] == "unknown"
        assert {name: record[name] for name in ("gold", "helpful", "harmless", "honest")} == {
            name: value for name, value in score(record["prompt"], record["response"])._asdict().items()
        }


def test_the_rubric_of_randomwalks_is_the_optimality_of_the_walk() -> None:
    graph = make_graph(1000)
    rubric = rubric_of(Data(rubric="randomwalks", graph_seed=1000))
    assert rubric is not None
    walk = [1]
    while walk[-1] != 0:  # a shortest walk from b
        walk.append(min(graph.successors[walk[-1]], key=graph.shortest.__getitem__))
    response = " ".join(chr(97 + node) for node in walk[1:])
    assert rubric("v w b", response) == {"gold": 1.0}
    assert rubric("v w b", response[:-1]) == {"gold": 0.0}
    assert rubric_of(Data(rubric="none", graph_seed=None)) is None


def test_data_without_a_rubric_gives_records_without_gold(
    policy: Any, yardsticks: Yardsticks, tiny_params: Any, prompts: list[Record]
) -> None:
    plain = [{"id": row["id"], "prompt": "where is the station ?"} for row in prompts]
    records = measure(policy, yardsticks, tiny_params(data={"rubric": "none"}), plain, 1, "validation")
    assert "gold" not in records[0] and records[0]["kind"] is None
    assert means(records).keys() == {"response_tokens", "ended", "reward", "judge", "kl", "entropy"}


def test_the_batch_size_changes_nothing_and_the_stream_does(
    policy: Any, yardsticks: Yardsticks, tiny_params: Any, prompts: list[Record]
) -> None:
    def measured(batch_size: int, stream: str) -> list[Record]:
        return measure(policy, yardsticks, tiny_params(measurement={"batch_size": batch_size}), prompts, 3, stream)

    whole = measured(12, "a")
    for record, expected in zip(measured(5, "a"), whole, strict=True):
        assert record == pytest.approx(expected, abs=1e-5)
    assert [record["response"] for record in measured(12, "b")] != [record["response"] for record in whole]


def test_two_policies_answer_with_the_same_random_numbers(yardsticks: Yardsticks, params: Params) -> None:
    """The stored SFT policy measured against itself: every response is the same, and its KL is 0."""
    rows = read_jsonl(paths.CLEAN / "prompts_test.jsonl")
    stored = measure_policy(paths.SFT / "policy", params, rows, 4, "test")
    loaded = measure(load_model(paths.SFT / "policy", None).policy, yardsticks, params, rows, 4, "test")
    assert stored == loaded
    assert all(record["kl"] == pytest.approx(0.0, abs=1e-5) for record in stored)


def test_means_are_of_numbers_only() -> None:
    records = [
        {"prompt": "a", "kind": None, "sample": 0, "ended": True, "kl": 1.0, "gold": 0},
        {"prompt": "b", "kind": None, "sample": 1, "ended": False, "kl": 2.0, "gold": 1},
    ]
    assert means(records) == {"ended": 0.5, "kl": 1.5, "gold": statistics.mean([0, 1])}
