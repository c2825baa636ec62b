"""Adapters on one base: what they compute is what peft computes, each role's own and nobody else's."""

from __future__ import annotations

import copy
import gc
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.config import LanguageModel, Params
from components.config.models import Adapter
from components.errors import ArtifactError, ConfigError
from components.models.adapters import checkpoint_contexts, new_adapter_policy
from components.models.checkpoint import from_pretrained
from components.models.loading import (
    load_codec,
    load_policy,
    load_scalar_model,
    load_scorer,
    new_scalar_model,
    save_policy,
    save_scalar_model,
    save_scorer,
)
from components.models.text import Codec
from components.passes.forward import response_logprobs, response_values, sequence_scores
from components.passes.sequences import Sequences

Pairs = list[tuple[list[int], list[int]]]
KINDS = ("lora", "rslora", "dora")


@pytest.fixture
def config(stored_policy: Path, tiny_params: Callable[..., Params]) -> LanguageModel:
    """A checkpoint of each architecture with LoRA of rank 3 on all linear layers."""
    adapter = Adapter(kind="lora", rank=3, alpha=5, target_modules="all-linear")
    return tiny_params().language_model.model_copy(update={"checkpoint": str(stored_policy), "adapter": adapter})


def of_kind(config: LanguageModel, kind: str) -> LanguageModel:
    assert config.adapter is not None
    return config.model_copy(update={"adapter": config.adapter.model_copy(update={"kind": kind})})


def adapted(config: LanguageModel, seed: int = 1) -> Any:
    """A policy whose adapter is far from nothing."""
    from transformers import AutoModelForCausalLM

    policy = new_adapter_policy(from_pretrained(AutoModelForCausalLM, config.checkpoint), config, seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return policy


def by_peft(base: Any, folder: Path, **options: Any) -> Any:
    """The folder as peft itself reads it, which warns of weights that it misses."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model: Any = PeftModel.from_pretrained(base, str(folder), **options)
    return model.eval()


def plain(config: LanguageModel, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if "num_labels" in options:
        return AutoModelForSequenceClassification.from_pretrained(config.checkpoint, **options).eval()
    return AutoModelForCausalLM.from_pretrained(config.checkpoint).eval()


def alone(policy: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Logprobs of a response by a plain model, on this sequence alone."""
    logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    logprobs: Tensor = logits.log_softmax(dim=-1).gather(1, torch.tensor(response)[:, None]).squeeze(1)
    return logprobs


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_and_gradients_are_pefts(
    config: LanguageModel, kind: str, sequences: Sequences, pairs: Pairs, tmp_path: Path
) -> None:
    policy = adapted(of_kind(config, kind))
    policy.save_pretrained(tmp_path / "policy")
    theirs = by_peft(plain(config), tmp_path / "policy", is_trainable=True)
    logprobs = response_logprobs(policy, sequences, 1.0)
    expected = [alone(theirs, prompt, response) for prompt, response in pairs]
    for row, each in zip(logprobs, expected, strict=True):
        torch.testing.assert_close(row[: len(each)], each, rtol=0, atol=2e-5)
    torch.autograd.backward(logprobs.sum())
    torch.autograd.backward(torch.stack([each.sum() for each in expected]).sum())
    gradients = {name: weight.grad for name, weight in theirs.named_parameters() if weight.requires_grad}
    assert len(gradients) == len(list(policy.parameters())) > 0
    for name, weight in policy.adapter.named_parameters():
        path, _, part = name.rpartition(".")
        gradient = gradients[f"base_model.model.{path}.default.{part}"]
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-4)


def test_a_new_adapter_changes_nothing_and_follows_its_seed(config: LanguageModel, sequences: Sequences) -> None:
    expected = response_logprobs(plain(config), sequences, 1.0)
    for kind in KINDS:
        before = torch.random.get_rng_state()
        first, again, other = (
            new_adapter_policy(from_pretrained(type(plain(config)), config.checkpoint), of_kind(config, kind), seed)
            for seed in (1, 1, 2)
        )
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.testing.assert_close(response_logprobs(first, sequences, 1.0), expected, rtol=0, atol=2e-5)
        weights = [policy.weights() for policy in (first, again, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_scores_and_values_are_those_of_pefts_sequence_classifier(
    config: LanguageModel, kind: str, sequences: Sequences, pairs: Pairs, tmp_path: Path
) -> None:
    adapted(of_kind(config, kind)).save_pretrained(tmp_path / "policy")
    model = new_scalar_model(tmp_path / "policy", seed=4)
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    model.classifier.config.score_mean, model.classifier.config.score_std = 0.3, 2.5
    save_scalar_model(model, tmp_path / "scalar")
    loaded = load_scalar_model(tmp_path / "scalar")
    theirs = by_peft(plain(config, num_labels=1), tmp_path / "scalar").base_model.model
    for row, (prompt, response) in enumerate(pairs):
        hidden = theirs.base_model(torch.tensor([prompt + response])).last_hidden_state
        expected = (theirs.score(hidden)[0, :, 0] - 0.3) / 2.5
        found = response_values(loaded, sequences)[row, : len(response)]
        torch.testing.assert_close(found, expected[len(prompt) - 1 : -1], rtol=0, atol=2e-5)
        torch.testing.assert_close(sequence_scores(loaded, sequences)[row], expected[-1], rtol=0, atol=2e-5)
    assert torch.equal(sequence_scores(loaded, sequences), sequence_scores(model, sequences))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_merged_models_are_plain_ones_of_the_same_logits_and_scores(
    config: LanguageModel, kind: str, sequences: Sequences, word_codec: Codec, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from components.models.adapters import write_merged

    policy = adapted(of_kind(config, kind))
    save_policy(policy, word_codec, tmp_path / "policy")
    scorers = [new_scalar_model(tmp_path / "policy", seed) for seed in (4, 5)]
    save_scorer(scorers, "mean", 1.0, tmp_path / "policy" / "scorer")
    write_merged(tmp_path / "policy", tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "proximal.json"} <= names
    assert not names & {"adapter_config.json", "adapter_model.safetensors", "base.json", "scalar.json"}
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    expected = response_logprobs(policy, sequences, 1.0)
    torch.testing.assert_close(response_logprobs(found, sequences, 1.0), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(
        response_logprobs(load_policy(tmp_path / "merged"), sequences, 1.0), expected, rtol=0, atol=2e-5
    )
    for number, scorer in enumerate(scorers, start=1):
        folder = tmp_path / "merged" / "scorer" / str(number)
        assert type(AutoModelForSequenceClassification.from_pretrained(folder)).__name__.endswith("Classification")
        expected = sequence_scores(scorer, sequences)
        torch.testing.assert_close(sequence_scores(load_scalar_model(folder), sequences), expected, rtol=0, atol=2e-5)


def storages(*models: nn.Module) -> dict[int, int]:
    """The bytes of all weights that these models compute with, by where they lie."""
    held: list[Any] = [model for root in models for model in root.modules()]
    held += [inner for view in held if hasattr(view, "base") for inner in view.base.model.modules()]
    weights = [weight for module in held for weight in module.parameters(recurse=False)]
    return {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in weights}


def test_all_roles_lie_on_one_base_in_memory(config: LanguageModel, tmp_path: Path) -> None:
    adapted(config).save_pretrained(tmp_path / "policy")
    save_scalar_model(new_scalar_model(tmp_path / "policy", 4), tmp_path / "scalar")
    gc.collect()  # what went before has gone
    policy, reference = load_policy(tmp_path / "policy"), load_policy(tmp_path / "policy")
    scalars = [load_scalar_model(tmp_path / "scalar") for _ in range(3)]  # value model, reward model, judge
    base = sum(weight.nbytes for weight in plain(config).parameters())
    file, scalar_file = (
        sum(weight.nbytes for weight in load_file(tmp_path / name / "adapter_model.safetensors").values())
        for name in ("policy", "scalar")
    )
    assert scalar_file - file == 16 * 4  # the head
    assert sum(storages(policy, reference, *scalars).values()) == base + 2 * file + 3 * scalar_file
    embeddings = {model.get_input_embeddings().weight.data_ptr() for model in (policy, reference)}
    embeddings |= {model.classifier.get_input_embeddings().weight.data_ptr() for model in scalars}
    assert len(embeddings) == 1
    own = [{weight.data_ptr() for weight in model.parameters()} for model in (policy, reference, *scalars)]
    assert sum(map(len, own)) == len(set.union(*own))


def test_an_adapter_goes_with_its_user_and_the_base_with_its_last_one(config: LanguageModel) -> None:
    import weakref

    policy = adapted(config)
    model, name = policy.base.model, policy.name
    copied = copy.deepcopy(policy)
    assert any(copied.name in each for each, _ in model.named_parameters())
    other = copied.name
    del copied
    assert not any(other in each for each, _ in model.named_modules())
    assert any(name in each for each, _ in model.named_modules())
    gone = weakref.ref(policy.base)
    del policy
    assert gone() is None


def test_roles_move_and_freeze_alone(config: LanguageModel, sequences: Sequences) -> None:
    """A step on one moves it and nothing else; what is frozen stays so when another adapter comes."""
    policy = adapted(config)
    reference = copy.deepcopy(policy).requires_grad_(False)
    start = response_logprobs(reference, sequences, 1.0)
    assert torch.equal(start, response_logprobs(policy, sequences, 1.0))
    base = {name: weight.clone() for name, weight in policy.base.model.named_parameters() if "adapter_" not in name}
    later = copy.deepcopy(policy)
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert all(weight.requires_grad for model in (policy, later) for weight in model.parameters())
    assert not any(w.requires_grad for name, w in policy.base.model.named_parameters() if "adapter_" not in name)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1)
    torch.autograd.backward(response_logprobs(policy, sequences, 1.0).sum())
    optimizer.step()
    assert torch.equal(response_logprobs(reference, sequences, 1.0), start)
    assert torch.equal(response_logprobs(later, sequences, 1.0), start)
    assert float((response_logprobs(policy, sequences, 1.0) - start).detach().abs().max()) > 0.01
    assert all(weight.grad is None for model in (reference, later) for weight in model.parameters())
    moved = dict(policy.base.model.named_parameters())
    assert all(torch.equal(moved[name], weight) for name, weight in base.items())


def test_recomputed_activations_are_those_of_the_adapter_of_the_forward_pass(
    config: LanguageModel, sequences: Sequences, tmp_path: Path
) -> None:
    """Policy and value model go forward, then both go back at once; without the contexts this fails."""
    policy = adapted(config)
    policy.save_pretrained(tmp_path / "policy")
    value_model = new_scalar_model(tmp_path / "policy", seed=4)
    with torch.no_grad():
        for weight in value_model.parameters():
            weight.mul_(1.5)
    models = (policy, value_model)

    def gradients() -> list[Tensor]:
        objective = response_logprobs(policy, sequences, 1.0).sum() + response_values(value_model, sequences).sum()
        weights = [weight for model in models for weight in model.parameters()]
        return list(torch.autograd.grad(objective, weights))

    for model in models:
        model.train()
    expected = gradients()
    kwargs: dict[str, Any] = {"use_reentrant": False, "context_fn": checkpoint_contexts}
    policy.base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    for found, each in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-5, atol=1e-5)
    policy.base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wrong = gradients()
    assert any(not torch.allclose(found, each, atol=1e-3) for found, each in zip(wrong, expected, strict=True))


def test_a_frozen_role_is_not_sent_away_with_the_base_of_the_policy(config: LanguageModel) -> None:
    """As during updates on a GPU where params ask for it; "meta" is where weights would be lost."""
    from components.training.offload import offloaded

    policy = adapted(config)
    reference = copy.deepcopy(policy)
    with offloaded([reference], policy, torch.device("meta"), asked=True):
        assert policy.get_input_embeddings().weight.device.type == "cpu"
    assert reference.get_input_embeddings().weight.device.type == "cpu"


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"vocabulary_chunk": 7}], ids=str)
def test_ways_to_save_memory_change_no_gradient(
    config: LanguageModel, changes: dict[str, Any], sequences: Sequences, tmp_path: Path
) -> None:
    """Of policy and value model at once, as in an update of PPO."""
    adapted(config).save_pretrained(tmp_path / "policy")
    found = []
    for held_as in (config, config.model_copy(update=changes)):
        policy = load_policy(tmp_path / "policy", held_as, trained=True)
        value_model = new_scalar_model(tmp_path / "policy", 4, held_as)
        for model in (policy, value_model):
            model.train()
        objective = response_logprobs(policy, sequences, 1.0).sum() + response_values(value_model, sequences).sum()
        found.append(torch.autograd.grad(objective, [*policy.parameters(), *value_model.parameters()]))
        assert policy.base is value_model.classifier.base
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_in_half_precision_has_float32_adapters(
    config: LanguageModel, kind: str, sequences: Sequences, tmp_path: Path
) -> None:
    half = of_kind(config, kind).model_copy(update={"dtype": "bfloat16"})
    adapted(of_kind(config, kind)).save_pretrained(tmp_path / "policy")
    policy, value_model = load_policy(tmp_path / "policy", half), new_scalar_model(tmp_path / "policy", 4, half)
    assert policy.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {weight.dtype for model in (policy, value_model) for weight in model.parameters()} == {torch.float32}
    exact = load_policy(tmp_path / "policy", of_kind(config, kind))
    assert exact.base is not policy.base
    gaps = (response_logprobs(policy, sequences, 1.0) - response_logprobs(exact, sequences, 1.0)).detach().abs()
    assert 0 < float(gaps.mean()) < 0.5  # reason: two or three digits of logits of 10 or so
    objective = response_logprobs(policy, sequences, 1.0).sum() + response_values(value_model, sequences).sum()
    torch.autograd.backward(objective)
    assert all(weight.grad is not None for model in (policy, value_model) for weight in model.parameters())


@pytest.fixture
def project(config: LanguageModel, word_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a base below it, and an adapter that names the base from the root."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(config.checkpoint, "models/tiny")
    save_policy(adapted(config.model_copy(update={"checkpoint": "models/tiny"})), word_codec, Path("artifacts/policy"))
    return tmp_path


def test_a_stored_policy_finds_its_base_from_anywhere(
    project: Path, sequences: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = response_logprobs(load_policy(Path("artifacts/policy")), sequences, 1.0)
    monkeypatch.chdir("/")
    assert torch.equal(response_logprobs(load_policy(project / "artifacts" / "policy"), sequences, 1.0), expected)
    assert load_codec(project / "artifacts" / "policy").encode_prompts(["a b"]) == [[2, 3]]


def test_another_base_and_a_missing_one_are_refused_by_name(project: Path) -> None:
    from safetensors.torch import save_file

    weights = load_file("models/tiny/model.safetensors")
    name = min(weights)
    save_file(weights | {name: weights[name] + 0.5}, "models/tiny/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="an adapter for another base") as caught:
        load_policy(Path("artifacts/policy"))
    assert "models/tiny" in caught.value.where and "artifacts/policy" in caught.value.where
    shutil.rmtree("models")
    with pytest.raises(ArtifactError, match="the base of an adapter is missing") as caught:
        load_policy(Path("artifacts/policy"))
    assert "models/tiny" in caught.value.expected


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "base.json"])
@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, path.stat().st_size // 2)])
def test_a_damaged_adapter_is_an_error_that_names_the_folder(
    project: Path, file: str, damage: Callable[[Path], None]
) -> None:
    damage(Path("artifacts/policy") / file)
    with pytest.raises(ArtifactError, match="artifacts/policy"):
        load_policy(Path("artifacts/policy"))


def test_an_adapter_of_another_shape_or_with_a_head_is_no_policy(project: Path) -> None:
    path = Path("artifacts/policy/adapter_config.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"r": 2}))
    with pytest.raises(ArtifactError, match="another adapter"):
        load_policy(path.parent)
    path.write_text(json.dumps(content))
    save_scalar_model(new_scalar_model(path.parent, 1), Path("scalar"))
    with pytest.raises(ArtifactError, match="a head"):
        load_policy(Path("scalar"))
    with pytest.raises(ArtifactError, match="no head"):
        load_scorer(path.parent)


@pytest.mark.parametrize("targets", [["nonsense"], ["lm_head"], ["embed_tokens", "wte"]])
def test_layers_that_cannot_be_adapted_are_refused_by_name(config: LanguageModel, targets: list[str]) -> None:
    assert config.adapter is not None
    changed = config.model_copy(update={"adapter": config.adapter.model_copy(update={"target_modules": targets})})
    with pytest.raises(ConfigError, match=r"language_model\.adapter\.target_modules") as caught:
        adapted(changed)
    assert caught.value.found == targets[0] and "proj" in caught.value.expected


def test_some_layers_by_their_names(config: LanguageModel) -> None:
    names = {"gpt2": ["c_attn"], "phi3": ["qkv_proj"]}.get(plain(config).config.model_type, ["q_proj", "v_proj"])
    assert config.adapter is not None
    changed = config.model_copy(update={"adapter": config.adapter.model_copy(update={"target_modules": names})})
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in adapted(changed).weights()}
    assert layers == set(names)


def test_the_same_adapter_has_the_same_bytes(project: Path, word_codec: Codec) -> None:
    save_policy(load_policy(Path("artifacts/policy")), word_codec, Path("again"))
    for path in Path("artifacts/policy").iterdir():
        assert path.read_bytes() == (Path("again") / path.name).read_bytes(), path.name
