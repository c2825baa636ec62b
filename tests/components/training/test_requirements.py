"""What an Accelerate config asks of the machine and of the model is refused by name before anything is paid for."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from architectures import random_causal_model

from components.config import LanguageModel, Params
from components.config.accelerate import AccelerateConfig, accelerate_config
from components.errors import ConfigError
from components.training.requirements import require_deepspeed, require_devices, require_layer_classes

ROOT = Path(__file__).resolve().parents[3]
GPU_CONFIGS = ("gpu", "gpu_eight", "gpu_fsdp2_eight", "gpu_zero3_eight")
LAYERS = {
    "llama": "LlamaDecoderLayer",
    "qwen2": "Qwen2DecoderLayer",
    "gemma3_text": "Gemma3DecoderLayer",
    "phi3": "Phi3DecoderLayer",
    "mistral": "MistralDecoderLayer",
}


def shipped(name: str) -> AccelerateConfig:
    return accelerate_config(ROOT / "infra" / "accelerate" / f"{name}.yaml")


def sharded(**changes: Any) -> AccelerateConfig:
    config = shipped("gpu_fsdp2_eight")
    assert config.fsdp_config is not None
    return config.model_copy(update={"fsdp_config": config.fsdp_config.model_copy(update=changes)})


@pytest.fixture
def settings(tiny_params: Any) -> LanguageModel:
    params: Params = tiny_params(language_model={"checkpoint": "tiny"})
    return params.language_model


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize("name", GPU_CONFIGS)
def test_gpus_that_are_not_here_are_one_error(name: str) -> None:
    config = shipped(name)
    with pytest.raises(ConfigError, match="asks for GPUs that are not here") as caught:
        require_devices(config)
    assert str(config.num_processes) in caught.value.where + caught.value.expected
    assert f"none that torch {torch.__version__} sees" in caught.value.found
    assert (ROOT / "infra/accelerate/cpu_auto.yaml").exists() and "infra/accelerate/cpu_auto.yaml" in caught.value.do


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize("preset", ["qwen2.5-0.5b", "qwen2.5-7b-lora", "llama-3.1-8b-fsdp2"])
def test_a_preset_for_gpus_is_refused_before_anything_begins(preset: str, tmp_path: Path) -> None:
    """As `proximal run` does, without a look at the checkpoint, which is fetched by nobody then."""
    from flows.preconditions import require_sound

    shutil.copytree(ROOT / "infra" / "accelerate", tmp_path / "infra" / "accelerate")
    shutil.copy(ROOT / "infra" / "presets" / f"{preset}.yaml", tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="asks for GPUs that are not here"):
        require_sound(tmp_path, {})


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    require_devices(shipped("gpu"))
    with pytest.raises(ConfigError, match="GPUs that are not here") as caught:
        require_devices(shipped("gpu_eight"))
    assert caught.value.expected.startswith("8 GPUs") and caught.value.found.startswith("4 that torch")


def test_cpus_are_always_here() -> None:
    for path in sorted((ROOT / "infra" / "accelerate").glob("cpu*.yaml")):
        require_devices(accelerate_config(path))


@pytest.mark.parametrize("architecture", LAYERS)
def test_the_layers_of_an_architecture_are_what_is_wrapped(
    architecture: str, settings: LanguageModel, tmp_path: Path
) -> None:
    """By Accelerate's own rule where no class is named, and by name; another family's layer is refused."""
    model = random_causal_model(architecture, 37, seed=1)
    model.config.save_pretrained(tmp_path / "tiny")
    own = LAYERS[architecture]
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {each.__name__ for each in wrapped} == {own}
    assert sum(isinstance(module, tuple(wrapped)) for module in model.modules()) == model.config.num_hidden_layers
    require_layer_classes(settings, shipped("gpu_fsdp2_eight"), tmp_path)
    require_layer_classes(settings, sharded(fsdp_transformer_layer_cls_to_wrap=own), tmp_path)
    for name in sorted(set(LAYERS.values()) - {own}):
        with pytest.raises(ConfigError, match="layers that the model does not have") as caught:
            require_layer_classes(settings, sharded(fsdp_transformer_layer_cls_to_wrap=f"{own},{name}"), tmp_path)
        assert own in caught.value.expected and caught.value.found == name


def test_a_model_that_is_not_sharded_is_not_looked_for(settings: LanguageModel, tmp_path: Path) -> None:
    require_layer_classes(settings, shipped("gpu_eight"), tmp_path)
    require_layer_classes(settings, sharded(fsdp_auto_wrap_policy="NO_WRAP"), tmp_path)
    with pytest.raises(ConfigError, match="the checkpoint cannot be loaded"):
        require_layer_classes(settings, sharded(), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_deepspeed_that_is_not_here_is_one_error() -> None:
    require_deepspeed(shipped("gpu_fsdp2_eight"))
    with pytest.raises(ConfigError, match="DeepSpeed, which is not installed") as caught:
        require_deepspeed(shipped("gpu_zero3_eight"))
    assert "pip install" in caught.value.do and "deepspeed" in caught.value.do
