"""One frozen causal language model in memory, and peft's named adapters in it, one a role.

The layers that peft puts around linear ones choose by a name which adapter they add. That name is set here and nowhere
else, directly: peft's own switches would also change what requires gradients in the adapters of other roles.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.models.adapter_origin import weight_files, weights_digest
from components.models.adapter_shape import AdapterShape

_numbers = itertools.count()
_bases: weakref.WeakValueDictionary[tuple[Any, ...], Base] = weakref.WeakValueDictionary()


class Base:
    """A causal language model whose own weights never move, with the adapters that were put into it.

    It lives as long as one of its adapters has a user.

    Args:
        model: without adapters.
        weights: the digest of its weights' files; see `weights_digest`.

    Attributes:
        parameters: how many the model has of its own, tied ones once.
    """

    _ran_last: weakref.ref[Base] | None = None  # of all bases

    def __init__(self, model: Any, weights: str) -> None:
        self.model = model.requires_grad_(False)
        self.weights = weights
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.active: str | None = None

    @classmethod
    def of(cls, folder: Path, load: Callable[[], Any], options: tuple[Any, ...] = ()) -> Base:
        """The base of the files in a folder as they are now; loaded if this process does not hold it yet.

        Args:
            load: gives the model.
            options: what else tells one way to hold the weights from another.
        """
        files = ((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(folder))
        key = (str(folder.resolve()), *files, *options)
        base = _bases.get(key)
        if base is None:
            base = _bases[key] = cls(load(), weights_digest(folder))
        return base

    def add(self, shape: AdapterShape, user: object) -> tuple[str, dict[str, nn.Module]]:
        """Put a new adapter in, whose part is 0; it goes when its user goes.

        Its weights are float32, whatever the base is held in; those that start at random follow the global generator,
        which stays where it is.

        Returns:
            Its name, and its modules by their paths in the model.
        """
        from peft import inject_adapter_in_model

        name = f"adapter_{next(_numbers)}"
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(shape.config(self.model), self.model, name)
        del self.model.peft_config  # peft would take it for the config of all adapters to come
        self.active = None  # peft has made the new one active
        weakref.finalize(user, self._drop, name).atexit = False
        found: dict[str, nn.Module] = {}
        for path, layer in self._layers():
            if name not in layer.lora_A:
                continue
            found[f"{path}.lora_A"] = layer.lora_A[name].to(torch.float32)
            found[f"{path}.lora_B"] = layer.lora_B[name].to(torch.float32)
            if name in layer.lora_magnitude_vector:  # DoRA's, made in the base's precision: once more in float32
                magnitude = found[f"{path}.lora_magnitude_vector"] = layer.lora_magnitude_vector[name]
                magnitude.update_layer(
                    base_layer=layer.get_base_layer(),
                    lora_A=layer.lora_A[name].weight,
                    lora_B=layer.lora_B[name].weight,
                    scaling=layer.scaling[name],
                )
        return name, found

    def activate(self, name: str) -> None:
        """Let the forward passes from here on add this adapter and no other."""
        Base._ran_last = weakref.ref(self)
        if self.active != name:
            for _, layer in self._layers():
                layer._active_adapter = [name]
            self.active = name

    @staticmethod
    def now() -> tuple[Base, str] | None:
        """The base and the adapter whose forward pass was the last to begin; None where there was none."""
        base = Base._ran_last() if Base._ran_last is not None else None
        return None if base is None or base.active is None else (base, base.active)

    def _drop(self, name: str) -> None:
        for _, layer in self._layers():
            for attribute in (*layer.adapter_layer_names, *layer.other_param_names, "lora_variant"):
                if name in (of_adapters := getattr(layer, attribute)):
                    del of_adapters[name]

    def _layers(self) -> list[tuple[str, Any]]:
        from peft.tuners.lora import LoraLayer

        return [(path, module) for path, module in self.model.named_modules() if isinstance(module, LoraLayer)]
