"""How large a stored model is, by the headers of its files: nothing of its weights is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from components.artifacts import read_json, reading
from components.models.adapter_origin import WEIGHTS_FILE, Origin, is_adapter

# What Hugging Face's architectures call their number of layers.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class ModelSize:
    """Parameters, tied ones once; layers as the model's config says, None where it does not."""

    parameters: int
    layers: int | None

    def __str__(self) -> str:
        layers = "" if self.layers is None else f"{self.layers} layer{'s' if self.layers != 1 else ''}, "
        return f"{layers}{_readable(self.parameters)} parameters"


def model_size(folder: Path) -> ModelSize:
    """The size of the model in a folder as Hugging Face stores it, in one file of weights or several, or as an adapter.

    Raises:
        ArtifactError: a file of weights is no safetensors file, or the base of an adapter is missing.
    """
    if is_adapter(folder):
        base = model_size(Origin.load(folder).folder(folder))
        return ModelSize(base.parameters + _parameters(folder, WEIGHTS_FILE), base.layers)
    parameters, config = _parameters(folder, "model*.safetensors"), read_json(folder / "config.json")
    return ModelSize(parameters, next((config[name] for name in _LAYERS if name in config), None))


def _parameters(folder: Path, pattern: str) -> int:
    parameters = 0
    for path in sorted(folder.glob(pattern)):
        with reading("model", path, "a safetensors file"), safe_open(path, framework="numpy") as tensors:
            parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return parameters


def _readable(count: int) -> str:
    """In the unit that people use: 0.24 M, 135 M, 7.24 B."""
    if count >= 10**9:
        return f"{count / 1e9:.3g} B"
    if count >= 10**6:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e6:.2f} M" if count >= 10**5 else f"{count:,}"
