"""The queue of `proximal label`: two independent answers a training prompt, of policies of choice, scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.artifacts import read_jsonl
from components.config import Params
from components.digests import digest
from components.errors import ConfigError
from components.interface.label.sampled import named_policies, sample_queue
from components.place import Place
from components.tracking import stage_run
from components.tracking.registration import register
from components.tracking.registry import set_alias


@pytest.fixture
def params(change_params: Callable[..., Params]) -> Params:
    """Answers so short that most of an untrained policy are whole characters, and so may be data."""
    return change_params(language_model={"max_response_tokens": 2})


@pytest.fixture
def moved(world: Path) -> str:
    """The SFT policy with other weights."""
    folder = Path(shutil.copytree(Place().sft / "policy", "moved"))
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    noisy = {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_two_policies_answer_training_prompts(world: Path, params: Params, moved: str) -> None:
    place, sft = Place(), str(Place().sft / "policy")
    policies = named_policies([sft, moved], params, place)
    assert [(each.name, each.digest) for each in policies.values()] == [
        ("artifacts/sft/policy", digest(Path(sft))),
        ("moved", digest(Path(moved))),
    ]
    queue = sample_queue(policies, params, place, 200)
    training = {row["prompt"] for row in read_jsonl(place.clean / "prompts_train.jsonl")}
    asked = [pair.prompt for pair in queue.pairs]
    assert len(set(asked)) == len(asked) and set(asked) <= training
    assert all([answer.policy.name for answer in pair.answers] == ["artifacts/sft/policy", "moved"]
               for pair in queue.pairs)  # fmt: skip
    signs = [
        (pair.answers[0].reward > pair.answers[1].reward) == (pair.answers[0].judge > pair.answers[1].judge)
        for pair in queue.pairs
    ]
    assert signs == sorted(signs)  # those on which the scorers disagree are before the others
    assert sample_queue(policies, params, place, 200) == queue
    assert len(sample_queue(policies, params, place, 8).pairs) <= 8


def test_one_policy_gives_two_samples(world: Path, params: Params) -> None:
    sft = str(Place().sft / "policy")
    queue = sample_queue(named_policies([sft, sft], params, Place()), params, Place(), 200)
    assert len(queue.policies) == 1
    assert queue.pairs and all(first.text != second.text for first, second in (pair.answers for pair in queue.pairs))


def test_without_names_it_is_sft_and_the_champion(world: Path, params: Params, moved: str) -> None:
    shutil.copytree(moved, Place().selection / "policy")
    assert [each.name for each in named_policies([], params, Place()).values()][1] in (
        "artifacts/selection/policy",
        "policy@champion",  # where another test of this session has promoted one
    )
    with stage_run("promotion", params) as run:
        name = params.promotion.registered_model
        version = register(run.run_id, name, Path(moved), {"policy_digest": "feed"}, {"temperature": 1.0})
    set_alias(version, "champion")
    names = [(each.name, each.digest) for each in named_policies([], params, Place()).values()]
    assert names == [("artifacts/sft/policy", digest(Place().sft / "policy")), (f"{name}@champion", "feed")]
    with pytest.raises(ConfigError, match="a pair has two answers"):
        named_policies(["a", "b", "c"], params, Place())
