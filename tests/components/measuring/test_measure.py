"""Records of measured responses against plain Hugging Face forwards, one unpadded sequence at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.alignment.policy_gradient.checkpoint import load_model
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.errors import ArtifactError
from components.measuring.measure import FrozenModels, measure, measure_policy, progress
from components.measuring.records import Record, means
from components.models.loading import load_policy
from components.place import Place
from components.worlds.helpdesk.rubric import grade

TEMPERATURE = 0.9


@pytest.fixture
def frozen(world: Path) -> FrozenModels:
    return FrozenModels.load(Place().frozen, torch.device("cpu"))


@pytest.fixture
def prompts(world: Path) -> list[Prompt]:
    return read_rows(Place().clean / "prompts_validation.jsonl", Prompt)


@pytest.fixture
def params(tiny_params: Callable[..., Params]) -> Params:
    return tiny_params(measurement={"temperature": TEMPERATURE})


@pytest.fixture
def policy(world: Path) -> Any:
    """The SFT policy, moved a little away from it."""
    policy = load_policy(Place().sft / "policy")
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    return policy


@pytest.fixture
def records(policy: Any, frozen: FrozenModels, params: Params, prompts: list[Prompt]) -> list[Record]:
    return measure(policy, frozen, params.shared, prompts, 5, "validation")


@torch.no_grad()
def test_every_number_is_hugging_faces(
    records: list[Record], policy: Any, frozen: FrozenModels, params: Params, prompts: list[Prompt]
) -> None:
    """The tokens of a response cannot be had back from its text, so they are drawn once more."""
    from components.engines.generation import generate
    from components.engines.sampling import draw_uniforms
    from components.seeding import generator

    codec = frozen.codec
    rows = codec.encode_prompts([row.prompt for row in prompts for _ in range(5)])
    numbers = draw_uniforms(20, 6, generator(params.seed, "measurement", "validation"))
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
        of_reference = distribution(frozen.reference, whole, start)
        kl = (of_policy.log_prob(tokens[mask]) - of_reference.log_prob(tokens[mask])).sum()
        assert record.kl == pytest.approx(float(kl), abs=1e-4)
        assert record.entropy == pytest.approx(float(of_policy.entropy().mean()), abs=1e-5)
        assert record.reward == pytest.approx(scalar(frozen.reward_model.token_model, whole), abs=1e-5)
        assert record.judge == pytest.approx(scalar(frozen.judge.token_model, whole), abs=1e-5)
        assert record.response_tokens == len(response)
        assert record.ended == (response[-1] == codec.eos_id)
        assert record.response == codec.decode([response])[0]
    assert {record.ended for record in records} == {True, False}  # both kinds were tried


def test_a_record_holds_its_prompt_and_its_rubric(records: list[Record], prompts: list[Prompt]) -> None:
    assert [(record.prompt_id, record.sample) for record in records] == [
        (row.id, sample) for row in prompts for sample in range(5)
    ]
    for record in records:
        assert record.kind == "unknown"
        assert record.rubric == grade(record.prompt, record.response)._asdict()


def test_data_without_a_rubric_gives_records_without_gold(
    policy: Any, frozen: FrozenModels, tiny_params: Any, prompts: list[Prompt]
) -> None:
    plain = [Prompt(row.id, "Where is the station?") for row in prompts]
    records = measure(policy, frozen, tiny_params(data={"rubric": None}).shared, plain, 1, "validation")
    assert records[0].rubric == {} and records[0].kind is None
    assert means(records).keys() == {"response_tokens", "ended", "reward", "judge", "kl", "entropy"}


def test_the_batch_size_changes_nothing_and_the_stream_does(
    policy: Any, frozen: FrozenModels, tiny_params: Any, prompts: list[Prompt]
) -> None:
    def measured(batch_size: int, stream: str) -> list[Record]:
        return measure(policy, frozen, tiny_params(measurement={"batch_size": batch_size}).shared, prompts, 3, stream)

    whole = measured(12, "a")
    for record, expected in zip(measured(5, "a"), whole, strict=True):
        assert record.numbers() == pytest.approx(expected.numbers(), abs=1e-5)
        assert record.response == expected.response
    assert [record.response for record in measured(12, "b")] != [record.response for record in whole]


def test_two_policies_answer_with_the_same_random_numbers(frozen: FrozenModels, params: Params) -> None:
    """The stored SFT policy measured against itself: every response is the same, and its KL is 0."""
    rows = read_rows(Place().clean / "prompts_test.jsonl", Prompt)
    stored = measure_policy(Place().sft / "policy", Place().frozen, params.shared, rows, 4, "test")
    loaded = measure(load_model(Place().sft / "policy", None).policy, frozen, params.shared, rows, 4, "test")
    assert stored == loaded
    assert all(record.kl == pytest.approx(0.0, abs=1e-5) for record in stored)


def test_a_policy_in_training_is_watched_without_the_judge(world: Path, params: Params, prompts: list[Prompt]) -> None:
    """Its folder is not even looked at; whoever measures needs it, and is told before a response is sampled."""
    whole = FrozenModels.load(Place().frozen, torch.device("cpu"))
    policy = load_policy(Place().sft / "policy")
    expected = means(measure(policy, whole, params.shared, prompts, 1, "watched"))
    shutil.rmtree(Place().judge)
    frozen = FrozenModels.load(Place().frozen, torch.device("cpu"))
    found = progress(policy, frozen, params.shared, prompts, "watched")
    assert found == {name: expected[name] for name in found} and "reward" in found
    with pytest.raises(ArtifactError, match="judge"):
        measure(None, frozen, params.shared, prompts, 1, "watched")
