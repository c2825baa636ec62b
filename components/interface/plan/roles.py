"""Who holds how many bytes in a phase."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from components.interface.plan.live_bytes import LiveBytes


class Phase(NamedTuple):
    """One phase of a stage, in bytes.

    Args:
        key: its name among `Simulation.phases`.
        roles: weights by role.
        training: gradients and the optimiser's moments.
        work: what else lives at the peak: activations, logits, key-value cache.
        parameters: of the policy's architecture.
        whole_model: bytes of a model's file.
        trained: roles whose weights an optimiser moves, which FSDP shards.
        layer: weights of the largest layer of these, which is gathered while it computes.
        root: their weights outside of layers, embeddings above all.
        adapters: whether one base serves all roles.
    """

    key: str
    stage: str
    name: str
    roles: dict[str, int]
    training: int
    work: int
    parameters: int
    whole_model: int
    trained: tuple[str, ...] = ()
    layer: int = 0
    root: int = 0
    adapters: bool = False

    @property
    def trains(self) -> bool:
        """Whether gradients are computed in it."""
        return self.name in ("training", "updates")

    @property
    def total(self) -> int:
        return sum(self.roles.values()) + self.training + self.work


class Roles:
    """Who holds which weights."""

    def __init__(self, live: LiveBytes, *, shared: bool) -> None:
        self._live = live
        self._shared = shared
        self._bytes: dict[str, int] = {}
        self._last = live.now
        self._held: list[Any] = []  # what its phase does not pass through takes its room all the same
        self._trained: dict[str, Any] = {}

    def add(self, role: str, model: Any, *, trained: bool = False) -> Any:
        self._held.append(model)
        if trained:
            self._trained[role] = model
        self._bytes[role] = self._bytes.get(role, 0) + self._live.now - self._last
        self._last = self._live.now
        return model

    def phase(self, stage: str, name: str, training: int, live: LiveBytes) -> Phase:
        weights = sum(self._bytes.values())
        parameters = sum(weight.numel() for path, weight in self._held[0].named_parameters() if "lora_" not in path)
        return Phase(
            name if stage == "alignment" else stage,
            stage,
            name,
            dict(self._bytes),
            training,
            max(0, live.peak - weights - training),
            parameters,
            0 if self._shared else 4 * parameters,
            tuple(self._trained),
            max((_layer(model) for model in self._trained.values()), default=0),
            max((_bytes(model) - _all_layers(model) for model in self._trained.values()), default=0),
            self._shared,
        )


def _bytes(module: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def _layers(model: Any) -> list[Any]:
    """A model's layers: what its longest list of modules of one class has."""
    lists = [list(each) for each in model.modules() if isinstance(each, nn.ModuleList)]
    alike = [each for each in lists if len({type(layer) for layer in each}) == 1]
    return max(alike, key=lambda each: sum(map(_bytes, each)), default=[])


def _layer(model: Any) -> int:
    return max(map(_bytes, _layers(model)), default=0)


def _all_layers(model: Any) -> int:
    return sum(map(_bytes, _layers(model)))
