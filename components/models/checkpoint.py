"""A model from its files: of the class that its config names, with all of its weights, without dropout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers.modeling_utils  # the slow part, here so that launch sees to its import

from components.artifacts import reading
from components.config import LanguageModel
from components.memory import is_out_of_memory
from components.models.holding import attention_options, attention_refusals, dtype_of, held


def model_class(folder: Path) -> Any:
    """The concrete class that the config names: loading it alone is quicker than the Auto classes' machinery."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    if not hasattr(transformers, name):
        raise ValueError(f"transformers has no class {name}")
    return getattr(transformers, name)


def load_model(folder: Path, config: LanguageModel | None = None, *, trained: bool = False) -> Any:
    """The model of a folder, of whatever class its config names; see `from_pretrained`."""
    with reading("model", folder, "config.json and model.safetensors, whole"):
        return from_pretrained(model_class(folder), folder, config, trained=trained)


def from_pretrained(
    model_class: Any, source: str | Path, config: LanguageModel | None = None, *, trained: bool = False, **options: Any
) -> Any:
    """A model with all of its weights: Hugging Face would draw those that a file lacks at random, and only warn.

    Args:
        config: how it is held; None for float32 and packed attention where that is known.
        trained: whether an optimiser moves its weights: then they are held in float32 whatever config says.
    """
    try:
        with attention_refusals(config):
            model, report = model_class.from_pretrained(
                source,
                dtype=dtype_of(config, trained=trained),
                use_safetensors=True,
                output_loading_info=True,
                **attention_options(config),
                **options,
            )
    except RuntimeError as fault:  # tensors of other shapes than the config's
        if is_out_of_memory(fault):
            raise
        raise ValueError(str(fault)) from fault
    if report["missing_keys"]:
        raise ValueError(f"no weights for {', '.join(sorted(report['missing_keys']))}")
    return held(model, config, trained=trained)
