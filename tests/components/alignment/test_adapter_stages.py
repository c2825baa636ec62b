"""All stages with adapters on one base: trained, measured, interrupted, resumed, chosen, evaluated and promoted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.alignment.policy_gradient.rollouts import Collector
from components.alignment.policy_gradient.update import Updater
from components.artifacts import read_json, read_jsonl, write_json
from components.config import Params
from components.digests import digest
from components.errors import ArtifactError, TrainingError
from components.measuring.measure import FrozenModels
from components.models.loading import load_codec, load_policy, load_scalar_model
from components.place import Place
from components.stages import perform

ChangeParams = Callable[..., Params]
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "base.json"}


def by_peft(folder: Path, **options: Any) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("models/tiny"), str(folder), **options).eval()


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_step_of_sft_is_one_of_plain_torch_on_pefts_model(
    adapted_world: Path, change_adapted_params: ChangeParams, kind: str
) -> None:
    """One batch of all rows: from the same start, AdamW on the summed loss of each sequence alone."""
    rows = read_jsonl(Place().clean / "demonstrations.jsonl")
    adapter = {"adapter": {"kind": kind, "rank": 4, "alpha": 8, "target_modules": ["q_proj", "down_proj"]}}
    stored = []
    for learning_rate in (1e-15, 0.01):
        sft = {"learning_rate": learning_rate, "epochs": 1, "batch_size": len(rows), "microbatch_size": 5}
        shutil.rmtree(Place().sft)
        perform("sft", change_adapted_params(language_model=adapter, sft=sft), Place())
        stored.append(Path(shutil.copytree(Place().sft / "policy", f"at_{learning_rate}")))
    codec, policy = load_codec(stored[0]), by_peft(stored[0], is_trainable=True)
    prompts = codec.encode_prompts([row["prompt"] for row in rows])
    responses = codec.encode_responses([row["response"] for row in rows])
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.01)
    for prompt, response in zip(prompts, responses, strict=True):
        labels = torch.tensor([[-100] * len(prompt) + response])
        loss = policy(torch.tensor([prompt + response]), labels=labels).loss * len(response)
        (loss / sum(map(len, responses))).backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    policy.save_pretrained("theirs")
    expected, found = load_file("theirs/adapter_model.safetensors"), load_file(stored[1] / "adapter_model.safetensors")
    assert found.keys() == expected.keys() and any("q_proj" in name for name in found)
    for name, weight in expected.items():
        # reason: AdamW's first step is the sign of a gradient, which rounding turns where it is next to 0
        assert float(((found[name] - weight).abs() > 1e-4).float().mean()) < 0.01, name


def test_without_sft_the_reference_is_the_checkpoint(adapted_world: Path, change_adapted_params: ChangeParams) -> None:
    """By a new adapter, whose part is 0."""
    from transformers import AutoModelForCausalLM

    perform("sft", change_adapted_params(sft={"epochs": 0}), Place())
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    expected = AutoModelForCausalLM.from_pretrained("models/tiny")(tokens).logits
    torch.testing.assert_close(load_policy(Place().sft / "policy")(tokens).logits, expected, rtol=0, atol=2e-5)
    weights = load_file(Place().sft / "policy" / "adapter_model.safetensors")
    assert all((float(weight.abs().sum()) == 0) == ("lora_B" in name) for name, weight in weights.items())


def test_sft_says_how_much_it_trains(adapted_world: Path) -> None:
    metrics = read_json(Place().sft / "metrics.json")
    weights = load_file(Place().sft / "policy" / "adapter_model.safetensors")
    base = load_file("models/tiny/model.safetensors")
    assert metrics["trained_parameters"] == sum(weight.numel() for weight in weights.values())
    assert metrics["parameters"] == metrics["trained_parameters"] + sum(weight.numel() for weight in base.values())


def test_ppo_starts_at_no_kl_and_resumes_to_the_same_bytes(
    adapted_world: Path, change_adapted_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = change_adapted_params()
    perform("alignment", params, Place(), 1)
    curve, folder = read_json(Place().alignment / "1" / "curve.json"), Place().alignment / "1"
    assert curve[0]["kl"] == 0.0 and all(row["kl"] != 0.0 for row in curve[1:])
    assert read_json(folder / "metrics.json")["validation_start"]["kl"] == 0.0
    assert {path.name for path in (folder / "policy").iterdir()} >= ADAPTER
    assert not list(Place().alignment.rglob("model.safetensors"))
    perform("alignment", params, Place(), 2)
    expected = digest(Place().alignment)

    shutil.rmtree(Place().alignment)
    real = Updater.update
    for cycle, stops_in in ((1, 1), (2, 5)):
        with monkeypatch.context() as patch:

            def stops(updater: Any, *arguments: Any, stops_in: int = stops_in) -> Any:
                if arguments[-1] == stops_in:
                    raise KeyboardInterrupt
                return real(updater, *arguments)

            patch.setattr(Updater, "update", stops)
            with pytest.raises(KeyboardInterrupt):
                perform("alignment", params, Place(), cycle)
        perform("alignment", params, Place(), cycle)
    assert digest(Place().alignment) == expected


def test_what_is_trained_starts_where_it_should(adapted_world: Path, change_adapted_params: ChangeParams) -> None:
    """Steps too small to be seen: policy = SFT adapter, value model = reward model = SFT adapter with a new head."""
    still = {"learning_rate": 1e-15}
    params = change_adapted_params(ppo=still | {"value_learning_rate": 1e-15}, reward_model=still)
    perform("reward_model", params, Place())
    perform("alignment", params, Place(), 1)
    sft, reward_model, policy, value_model = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (
            Place().sft / "policy",
            Place().reward_model / "model",
            Place().alignment / "1" / "policy",
            Place().alignment / "1" / "state" / "value_model",
        )
    )
    head = "base_model.model.score.weight"
    assert sft.keys() == policy.keys() and reward_model.keys() == value_model.keys() == sft.keys() | {head}
    for name, weight in sft.items():
        torch.testing.assert_close(policy[name], weight, rtol=0, atol=1e-9)
        torch.testing.assert_close(reward_model[name], weight, rtol=0, atol=1e-9)
        torch.testing.assert_close(value_model[name], weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(value_model[head], reward_model[head], rtol=0, atol=1e-9)
    assert float(reward_model[head].std()) == pytest.approx(1 / 17**0.5, rel=0.5)  # reason: 16 random numbers
    assert load_scalar_model(Place().judge / "model").classifier.config.score_std > 0


def test_a_reference_that_is_not_the_policy_stops_the_run(
    adapted_world: Path, change_adapted_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap itself: the reference would be the base without the SFT adapter."""
    real = Collector.__init__

    def without_adapter(collector: Any, accelerator: Any, model: Any, reference: Any, *more: Any) -> None:
        with torch.no_grad():
            for weight in reference.parameters():
                weight.zero_()
        real(collector, accelerator, model, reference, *more)

    monkeypatch.setattr(Collector, "__init__", without_adapter)
    with pytest.raises(TrainingError, match="the policy is not its reference") as caught:
        perform("alignment", change_adapted_params(), Place(), 1)
    assert "nats" in caught.value.found and "0.0001" in caught.value.expected
    assert not Place().alignment.exists()


def test_the_reference_is_frozen(adapted_world: Path) -> None:
    frozen = FrozenModels.load(Place().frozen, torch.device("cpu"))
    weights = list(frozen.reference.parameters())
    assert weights and not any(weight.requires_grad for weight in weights)


@pytest.mark.parametrize("method", ["grpo", "rloo", "dpo", "online_dpo", "best_of_n", "q_learning"])
def test_every_method_works_with_adapters(
    adapted_world: Path, change_adapted_params: ChangeParams, method: str
) -> None:
    params = change_adapted_params(method=method)
    for cycle in (1, 2):
        perform("alignment", params, Place(), cycle)
        folder = Place().alignment / str(cycle)
        assert {path.name for path in (folder / "policy").iterdir()} >= ADAPTER
        load_policy(folder / "policy")
    assert not list(Place().alignment.rglob("model.safetensors"))
    metrics = read_json(Place().alignment / "2" / "metrics.json")
    assert abs(metrics["validation"]["kl"]) > 1e-4


@pytest.mark.parametrize(("reference", "share"), [("refreshed", 1.0), ("averaged", 0.25)])
def test_a_reference_may_move(
    adapted_world: Path, change_adapted_params: ChangeParams, reference: str, share: float
) -> None:
    """Of adapters, the average is that of their weights."""
    params = change_adapted_params(ppo={"reference": reference, "reference_average_weight": 0.25})
    perform("alignment", params, Place(), 1)
    perform("alignment", params, Place(), 2)
    sft, policy, moved = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (
            Place().sft / "policy",
            Place().alignment / "1" / "policy",
            Place().alignment / "2" / "state" / "reference",
        )
    )
    for name, weight in sft.items():
        torch.testing.assert_close(moved[name], (1 - share) * weight + share * policy[name], rtol=0, atol=1e-6)
    first = read_json(Place().alignment / "2" / "curve.json")[0]["kl"]
    assert (first == 0.0) == (reference == "refreshed")


def test_all_that_saves_memory_at_once(adapted_world: Path, change_adapted_params: ChangeParams) -> None:
    """A base in bfloat16, activations computed again, logprobs in chunks: the run's own checks hold."""
    saving = {"dtype": "bfloat16", "gradient_checkpointing": True, "vocabulary_chunk": 64}
    params = change_adapted_params(language_model=saving)
    for stage in ("sft", "reward_model", "judge"):
        perform(stage, params, Place())
    perform("alignment", params, Place(), 1)
    curve = read_json(Place().alignment / "1" / "curve.json")
    assert curve[0]["kl"] == 0.0 and curve[-1]["kl"] != 0.0
    weights = load_file(Place().alignment / "1" / "policy" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_an_ensemble_of_adapters(adapted_world: Path, change_adapted_params: ChangeParams) -> None:
    params = change_adapted_params(reward_model={"members": 2, "ensemble": "min"}, ppo={"iterations_per_cycle": 1})
    perform("reward_model", params, Place())
    assert {path.name for path in (Place().reward_model / "model").iterdir()} == {"1", "2", "ensemble.json"}
    perform("alignment", params, Place(), 1)


def test_a_changed_base_stops_what_comes_after(adapted_world: Path, change_adapted_params: ChangeParams) -> None:
    from components.models.checkpoint import load_model

    model = load_model(Path("models/tiny"))
    with torch.no_grad():
        model.model.norm.weight.add_(0.5)
    model.save_pretrained("models/tiny")
    with pytest.raises(ArtifactError, match="an adapter for another base"):
        perform("alignment", change_adapted_params(), Place(), 1)


def test_selection_evaluation_and_promotion(
    adapted_world: Path, change_adapted_params: ChangeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registered model is merged: it answers as the candidate does where no base is."""
    from components.engines.answering import Answerer
    from components.tracking.registry import CANDIDATE, fetch_policy, version_at

    promotion = {"registered_model": "adapted", "min_prompts": 2}
    params = change_adapted_params(promotion=promotion, evaluation={"shown_samples": 2})
    for cycle in (1, 2):
        perform("alignment", params, Place(), cycle)
    perform("selection", params, Place())
    assert {path.name for path in (Place().selection / "policy").iterdir()} >= ADAPTER
    report = {"prompts": {"rows": 18}, "warnings": 0, "checks": []}
    write_json(Place().data_validation / "report.json", report)
    perform("evaluation", params, Place())
    assert "2 layers, " in (Place().evaluation / "report.html").read_text()
    perform("promotion", params, Place())
    version = version_at("adapted", CANDIDATE)
    assert version is not None
    expected = Answerer(Place().selection / "policy").answer(
        ["My printer hums."] * 3, temperature=1.0, max_response_tokens=6, seed=3
    )
    shutil.rmtree("models")
    registered = fetch_policy(version, Path("fetched"))
    assert (registered / "model.safetensors").exists() and not (registered / "base.json").exists()
    answers = Answerer(registered).answer(["My printer hums."] * 3, temperature=1.0, max_response_tokens=6, seed=3)
    assert answers == expected
