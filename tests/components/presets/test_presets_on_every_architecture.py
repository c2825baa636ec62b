"""The presets' own settings through every stage, made tiny by a stated overlay, on every architecture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from preset_worlds import FAMILIES, ROOT, write_checkpoint, write_data, write_preset

from components.artifacts import read_json, read_jsonl
from components.config.accelerate import accelerate_config
from components.interface.export import export
from components.models.loading import load_codec, load_policy
from components.passes.forward import response_logprobs
from components.passes.sequences import build_sequences
from components.place import Place
from components.stages import perform

STAGES = ("data_validation", "sft", "reward_model", "judge", "alignment", "selection", "evaluation", "promotion")
CANDIDATE = Place().selection / "policy"


@pytest.fixture(autouse=True)
def no_accelerator_is_left() -> Iterator[None]:
    """These stages compute in bfloat16; the tests after them choose anew."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("preset", ["whole", "adapters"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_stage_of_a_preset(
    architecture: str, preset: str, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, SFT (or the checkpoint as it is), reward model, judge, an iteration of PPO, its measurement, promotion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "infra" / "accelerate", Path("infra", "accelerate"))
    write_checkpoint(Path("models", "tiny"), architecture)
    write_data(Path("data"))
    whole = "llama-3.1-8b-fsdp2.yaml" if architecture == "llama" else "qwen2.5-0.5b.yaml"
    name = whole if preset == "whole" else "qwen2.5-7b-lora.yaml"
    params = write_preset(
        Path(), name, {"promotion": {"registered_model": f"{architecture}-{preset}", "min_prompts": 2}}
    )
    config = accelerate_config(Path(params.compute.accelerate_config))
    for stage in STAGES:
        perform(stage, params, Place(), 1 if stage == "alignment" else None, config)

    [first] = read_json(Place().alignment / "1" / "curve.json")
    if params.language_model.dtype == "float32" or preset == "adapters":
        assert first["kl"] == 0.0
    else:
        assert abs(first["kl"]) < 0.05  # reason: the reference is held in bfloat16, the policy in float32
    plain = adapted_by_peft(CANDIDATE) if preset == "adapters" else from_transformers(CANDIDATE)
    assert_logprobs_are_those_of(plain, load_policy(CANDIDATE))
    export(CANDIDATE, Path("exported"), "float32")
    assert_logprobs_are_those_of(from_transformers(Path("exported")), load_policy(CANDIDATE))
    moved = [not torch.equal(a, b) for a, b in zip(weights(plain), weights(untrained(preset)), strict=True)]
    assert any(moved)


def from_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def adapted_by_peft(folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(from_transformers(Path("models", "tiny")), str(folder)).eval()


def untrained(preset: str) -> Any:
    return adapted_by_peft(Place().sft / "policy") if preset == "adapters" else from_transformers(Path("models/tiny"))


def weights(model: Any) -> list[torch.Tensor]:
    return [weight for _, weight in sorted(model.named_parameters())]


@torch.no_grad()
def assert_logprobs_are_those_of(plain: Any, policy: Any) -> None:
    """Of the policy's own test responses, against one plain forward pass of each sequence alone."""
    codec = load_codec(CANDIDATE)
    rows = [row for row in read_jsonl(Place().evaluation / "records.jsonl") if row["response"]][:4]
    prompts = codec.encode_prompts([row.get("messages") or row["prompt"] for row in rows])
    responses = codec.encode_responses([row["response"] for row in rows])
    assert len(set(map(len, prompts))) > 1 and max(map(len, prompts)) > 8  # some padding, and more than a window
    found = response_logprobs(policy, build_sequences(prompts, responses, codec.pad_id), 1.0)
    for logprobs, prompt, response in zip(found, prompts, responses, strict=True):
        logits = plain(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(logprobs[: len(response)], expected, rtol=0, atol=1e-4)
