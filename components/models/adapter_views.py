"""A role as a view of the one base: it has as its own only its adapter and its head.

A view's parameters, state dict, optimiser state and gradients are those of its adapter (and head) alone, so that all
that trains, stores, averages or counts a model does so with an adapter.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.artifacts import write_json
from components.models.adapter_origin import WEIGHTS_FILE, Origin
from components.models.adapter_shape import AdapterShape
from components.models.shared_base import Base

SCALAR_FILE = "scalar.json"  # beside a scorer's adapter: score_mean and score_std
PREFIX = "base_model.model."  # of peft's names in a file of weights
HEAD = "score.weight"


class AdapterView(nn.Module):
    """An adapter on a base, which it shares with others and which is no part of it.

    Args:
        weights: of the adapter, by the names of `weights()`; None for a new one, whose part is 0.
    """

    def __init__(self, base: Base, origin: Origin, shape: AdapterShape, weights: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.base, self.origin, self.shape = base, origin, shape
        self.name, modules = base.add(shape, user=self)
        self.adapter = _tree(modules)
        if weights is not None:
            self.adapter.load_state_dict(weights)
        self.eval()

    def weights(self) -> dict[str, Tensor]:
        """The adapter's weights by their names in the base."""
        return self.adapter.state_dict()

    def run(self, model: Any, *arguments: Any, **inputs: Any) -> Any:
        """Call the base, or a part of it, with this adapter."""
        if self.base.model.training != self.training:
            self.base.model.train(self.training)
        self.base.activate(self.name)
        return model(*arguments, **inputs)

    @property
    def base_model(self) -> Any:
        """The trunk with this adapter, to be called."""
        return lambda *arguments, **inputs: self.run(self.base.model.base_model, *arguments, **inputs)

    def get_input_embeddings(self) -> Any:
        return self.base.model.get_input_embeddings()

    def _apply(self, fn: Any, recurse: bool = True) -> AdapterView:
        self.base.model._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _save(self, folder: Path, task: Any, more: dict[str, Tensor]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        named = {_to_peft(name): weight for name, weight in self.weights().items()} | more
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in named.items()}
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        self.shape.save(folder, self.base.model, self.origin.checkpoint, task)
        self.origin.save(folder)


class AdapterPolicy(AdapterView):
    """A causal language model by an adapter."""

    @property
    def config(self) -> Any:
        return self.base.model.config

    @property
    def generation_config(self) -> Any:
        return self.base.model.generation_config

    @property
    def vocabulary_chunk(self) -> int | None:
        """See components.passes.forward."""
        return getattr(self.base.model, "vocabulary_chunk", None)

    def get_output_embeddings(self) -> Any:
        return self.base.model.get_output_embeddings()

    def forward(self, *arguments: Any, **inputs: Any) -> Any:
        return self.run(self.base.model, *arguments, **inputs)

    def save_pretrained(self, folder: Path) -> None:
        self._save(folder, "CAUSAL_LM", {})
        self.generation_config.save_pretrained(folder)

    def __deepcopy__(self, memo: Any) -> AdapterPolicy:
        return AdapterPolicy(self.base, self.origin, self.shape, self.weights())


class AdapterClassifier(AdapterView):
    """What a sequence classifier of transformers is to `ScalarModel`, by an adapter and a head.

    Args:
        head: the head's weights. Shapes: (1, hidden).
    """

    def __init__(
        self, base: Base, origin: Origin, shape: AdapterShape, weights: dict[str, Tensor], head: Tensor
    ) -> None:
        super().__init__(base, origin, shape, weights)
        self.config = copy.deepcopy(base.model.config)
        self.config.num_labels = 1
        self.config.score_mean, self.config.score_std = 0.0, 1.0
        self.score = nn.Linear(head.shape[1], 1, bias=False, device=head.device)
        with torch.no_grad():
            self.score.weight.copy_(head)

    def save_pretrained(self, folder: Path) -> None:
        self._save(folder, "SEQ_CLS", {PREFIX + HEAD: self.score.weight})
        moments = {"score_mean": self.config.score_mean, "score_std": self.config.score_std}
        write_json(folder / SCALAR_FILE, moments)

    def __deepcopy__(self, memo: Any) -> AdapterClassifier:
        copied = AdapterClassifier(self.base, self.origin, self.shape, self.weights(), self.score.weight.detach())
        copied.config = copy.deepcopy(self.config)
        return copied


def with_bases(model: nn.Module) -> list[nn.Module]:
    """A model, and the bases that its views call, which are no parts of it; each once."""
    bases = [module.base.model for module in model.modules() if isinstance(module, AdapterView)]
    return list({id(part): part for part in (model, *bases)}.values())


def _to_peft(name: str) -> str:
    return PREFIX + name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _tree(modules: dict[str, nn.Module]) -> nn.Module:
    """Modules by dotted paths, as a tree of modules."""
    root = nn.Module()
    for path, module in modules.items():
        *parents, last = path.split(".")
        place = root
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = getattr(place, parent)
        place.add_module(last, module)
    return root
