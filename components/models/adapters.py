"""Adapters as stored models: made, loaded, merged; each is a view of the one base that this process holds.

Stored, an adapter is a folder that `PeftModel.from_pretrained(base, folder)` reads, and base.json says of which base.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.artifacts import read_json, reading
from components.config import LanguageModel
from components.models.adapter_origin import CONFIG_FILE, ORIGIN_FILE, WEIGHTS_FILE, Origin, weights_digest
from components.models.adapter_shape import AdapterShape
from components.models.adapter_views import HEAD, PREFIX, SCALAR_FILE, AdapterClassifier, AdapterPolicy, AdapterView
from components.models.checkpoint import from_pretrained
from components.models.holding import dtype_of, use_gradient_checkpointing
from components.models.shared_base import Base


def new_adapter_policy(model: Any, config: LanguageModel, seed: int) -> AdapterPolicy:
    """A checkpoint with a new adapter of the params, which changes nothing yet.

    Args:
        model: the checkpoint, whole, as params say it is to be held; it becomes the base.
    Raises:
        ConfigError: the adapter does not fit the model.
    """
    assert config.adapter is not None
    shape = AdapterShape.of(config.adapter, model)
    origin, folder = Origin.of(config.checkpoint, model)
    base = Base.of(folder, lambda: _as_base(model, config), _options(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AdapterPolicy(base, origin, shape, None)


def load_adapter_policy(folder: Path, config: LanguageModel | None = None) -> AdapterPolicy:
    """A policy that was stored as an adapter, on the base that this process holds, or that is loaded now.

    Args:
        config: how the base is held; None where there are no params.
    Raises:
        ArtifactError: absent, half-written or corrupt, or its base is missing or has other weights.
    """
    base, origin, shape = _base_of(folder, config)
    with reading("adapter", folder, f"{CONFIG_FILE} and {WEIGHTS_FILE}, whole"):
        weights, head = _stored_weights(folder)
        if head is not None:
            raise ValueError("it has a head, as a scorer's has")
        return _fitting(AdapterPolicy(base, origin, shape, None), weights)


def new_adapter_classifier(policy_folder: Path, seed: int, config: LanguageModel | None = None) -> AdapterClassifier:
    """A scalar model that starts as a stored policy's adapter and a head that starts near zero."""
    policy = load_adapter_policy(policy_folder, config)
    hidden_size = policy.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(1, hidden_size, generator=generator) / (hidden_size + 1) ** 0.5
    return AdapterClassifier(policy.base, policy.origin, policy.shape, policy.weights(), head)


def load_adapter_classifier(folder: Path, config: LanguageModel | None = None) -> AdapterClassifier:
    """A scalar model that was stored as an adapter; see `load_adapter_policy`."""
    base, origin, shape = _base_of(folder, config)
    with reading("adapter", folder, f"{CONFIG_FILE}, {WEIGHTS_FILE} with a head, and {SCALAR_FILE}, whole"):
        weights, head = _stored_weights(folder)
        if head is None or head.shape != (1, base.model.config.hidden_size):
            raise ValueError("it has no head of this model's size")
        policy = _fitting(AdapterPolicy(base, origin, shape, None), weights)
        classifier = AdapterClassifier(base, origin, shape, policy.weights(), head)
        moments = read_json(folder / SCALAR_FILE)
        classifier.config.score_mean = float(moments["score_mean"])
        classifier.config.score_std = float(moments["score_std"])
        return classifier


def merged(folder: Path) -> Any:
    """A stored adapter merged into its base: a plain Hugging Face model in float32, of the same logits (or scores).

    Raises:
        ArtifactError: absent, half-written or corrupt, or its base is missing or has other weights.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    origin = Origin.load(folder)
    source = origin.folder(folder)
    origin.require(weights_digest(source), folder, source)
    is_scalar = (folder / SCALAR_FILE).exists()
    with reading("adapter", folder, f"{CONFIG_FILE} and {WEIGHTS_FILE}, whole, and its base"):
        if is_scalar:
            # Its head is not the base's: there is none to miss.
            model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32, num_labels=1)
        else:
            model = from_pretrained(AutoModelForCausalLM, source)
        try:
            adapted = PeftModel.from_pretrained(model, str(folder))
        except RuntimeError as fault:  # tensors of other shapes than the model's
            raise ValueError(str(fault)) from fault
        if get_peft_model_state_dict(adapted).keys() != load_file(folder / WEIGHTS_FILE).keys():
            raise ValueError("the names of its weights are those of another adapter")
        model = adapted.merge_and_unload(safe_merge=True).eval()
        if is_scalar:
            moments = read_json(folder / SCALAR_FILE)
            model.config.score_mean, model.config.score_std = moments["score_mean"], moments["score_std"]
    return model


def write_merged(folder: Path, out: Path) -> None:
    """Copy a stored policy or scorer to `out` with every adapter in it merged, so that it needs no base.

    Raises:
        ArtifactError: as `merged`.
    """
    shutil.copytree(folder, out)
    for config in sorted(out.rglob(CONFIG_FILE)):
        copied = config.parent
        model = merged(folder / copied.relative_to(out))
        for name in (CONFIG_FILE, WEIGHTS_FILE, ORIGIN_FILE, SCALAR_FILE):
            (copied / name).unlink(missing_ok=True)
        model.save_pretrained(copied)


def freeze_adapters(model: nn.Module) -> None:
    """Let no gradient reach the adapters and heads of a model; one of whole weights stays as it is."""
    for module in model.modules():
        if isinstance(module, AdapterView):
            module.requires_grad_(False)


def parameter_counts(policy: Any) -> dict[str, int]:
    """`parameters`: all of a policy's, tied ones once; of an adapter also `trained_parameters`, its own."""
    own = sum(weight.numel() for weight in policy.parameters())
    if not isinstance(policy, AdapterView):
        return {"parameters": own}
    return {"parameters": own + policy.base.parameters, "trained_parameters": own}


def checkpoint_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `torch.utils.checkpoint`'s context_fn: what is computed again in the backward pass has the adapter that it
    had in the forward pass, whichever ran since.

    Called in the forward pass; gives the contexts of that and of the second computation.
    """
    now = Base.now()
    return nullcontext(), nullcontext() if now is None else _again(*now)


@contextmanager
def _again(base: Base, name: str) -> Iterator[None]:
    base.activate(name)
    yield


def _options(config: LanguageModel | None) -> tuple[Any, ...]:
    """What of the params tells one way to hold a base from another."""
    if config is None:
        return (str(torch.float32), None, False, None)
    dtype = str(dtype_of(config, trained=False))
    return (dtype, config.attn_implementation, config.gradient_checkpointing, config.vocabulary_chunk)


def _as_base(model: Any, config: LanguageModel | None) -> Any:
    """A model whose activations are computed again, if at all, with the adapter that they were computed with."""
    if config is not None and config.gradient_checkpointing:
        use_gradient_checkpointing(model, checkpoint_contexts)
    return model


def _base_of(folder: Path, config: LanguageModel | None) -> tuple[Base, Origin, AdapterShape]:
    from transformers import AutoModelForCausalLM

    shape, origin = AdapterShape.load(folder), Origin.load(folder)
    source = origin.folder(folder)

    def load() -> Any:
        with reading("base model", source, "config.json and its weights, whole"):
            return _as_base(from_pretrained(AutoModelForCausalLM, source, config), config)

    base = Base.of(source, load, _options(config))
    origin.require(base.weights, folder, source)
    return base, origin, shape


def _stored_weights(folder: Path) -> tuple[dict[str, Tensor], Tensor | None]:
    tensors = load_file(folder / WEIGHTS_FILE)
    head = tensors.pop(PREFIX + HEAD, None)
    return {_from_peft(name): tensor for name, tensor in tensors.items()}, head


def _fitting(policy: AdapterPolicy, weights: dict[str, Tensor]) -> AdapterPolicy:
    expected = {name: weight.shape for name, weight in policy.weights().items()}
    if {name: weight.shape for name, weight in weights.items()} != expected:
        raise ValueError("the names or shapes of its weights are those of another adapter")
    policy.adapter.load_state_dict(weights)
    return policy


def _from_peft(name: str) -> str:
    inner = name.removeprefix(PREFIX)
    return f"{inner}.weight" if inner.endswith(".lora_magnitude_vector") else inner
