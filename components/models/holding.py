"""How a model is held and passed through, as `language_model` says: dtype, attention, recomputed activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from components.config import LanguageModel
from components.errors import ConfigError
from components.passes.attention import use_packed_attention

# What makes the contexts of a forward pass and of its repetition, as torch.utils.checkpoint takes it.
ContextFn = Callable[[], tuple[Any, Any]]


def dtype_of(config: LanguageModel | None, *, trained: bool) -> torch.dtype:
    """What weights are held in: trained ones in float32, where small steps are not lost; the others as params say."""
    if config is None or trained:
        return torch.float32
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def attention_options(config: LanguageModel | None) -> dict[str, Any]:
    """What transformers is told of attention when it makes a model: nothing where params leave it to us."""
    if config is None or config.attn_implementation is None:
        return {}
    return {"attn_implementation": config.attn_implementation}


@contextmanager
def attention_refusals(config: LanguageModel | None) -> Iterator[None]:
    """Around what makes a model: a name of attention that transformers or this machine refuses, said as ours.

    Raises:
        ConfigError: see above.
    """
    try:
        yield
    except (ImportError, ValueError, RuntimeError) as fault:
        if config is None or config.attn_implementation is None or not _is_about_attention(fault):
            raise
        raise refused_attention(config, fault) from fault


def refused_attention(config: LanguageModel, fault: Exception | str) -> ConfigError:
    """That the attention named in params is not to be had, and why."""
    return ConfigError(
        "this attention is not to be had here",
        where="language_model.attn_implementation",
        expected="null, or a name that transformers knows for this architecture and that works on this machine, "
        "such as sdpa or eager",
        found=f"{config.attn_implementation}: {' '.join(str(fault).split())[:300]}",
        do="set it to null: packed sequences where that is known, else what transformers takes by itself",
    )


def held(model: Any, config: LanguageModel | None, *, trained: bool) -> Any:
    """A model that was just made or loaded, as it is to be used: without dropout, its attention and all else set.

    Args:
        config: None for models of people who have no params: packed attention where it is known, and nothing more.
        trained: whether an optimiser moves its weights: only then are activations recomputed.
    Raises:
        ConfigError: transformers chose another attention than params name.
    """
    no_dropout(model)
    if config is None or config.attn_implementation is None:
        use_packed_attention(model)
    elif model.config._attn_implementation != config.attn_implementation:
        raise refused_attention(config, f"transformers takes {model.config._attn_implementation} in its place")
    if config is not None and config.vocabulary_chunk is not None:
        model.vocabulary_chunk = config.vocabulary_chunk  # see components.passes.forward
    if config is not None and config.gradient_checkpointing and trained:
        use_gradient_checkpointing(model)
    return model


def use_gradient_checkpointing(model: Any, context_fn: ContextFn | None = None) -> None:
    """Let a model compute its layers' activations again in the backward pass; it does so while `model.training` only.

    Args:
        context_fn: what forward and repetition run within; by default nothing. Adapters that are switched between on
            one base need it: the repetition must run under the adapter of its forward pass.
    Raises:
        ConfigError: transformers has none for this architecture.
    """
    if not model.supports_gradient_checkpointing:
        raise ConfigError(
            "activations of this architecture cannot be recomputed",
            where="language_model.gradient_checkpointing",
            expected="an architecture for which transformers has gradient checkpointing",
            found=type(model).__name__,
            do="set it to false; a smaller microbatch_size saves memory too",
        )
    options: dict[str, Any] = {"use_reentrant": False}
    if context_fn is not None:
        options["context_fn"] = context_fn
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def recomputes(model: nn.Module) -> bool:
    """Whether some part of a model computes its activations again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def no_dropout(model: Any) -> Any:
    """Switch dropout off for good: with it, old and new logprobs of the same weights differ and the ratio lies."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # as in the attention of Llama, Qwen and their kin
                setattr(module, name, 0.0)
    return model.eval()


def _is_about_attention(fault: Exception) -> bool:
    """Whether a fault while a model was made tells of its attention: a library that lacks, or such words."""
    return isinstance(fault, ImportError) or any(word in str(fault).lower() for word in ("attn", "attention"))
