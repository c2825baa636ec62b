"""Who holds how many bytes in a phase."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    """

    key: str
    stage: str
    name: str
    roles: dict[str, int]
    training: int
    work: int
    parameters: int
    whole_model: int

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

    def add(self, role: str, model: Any) -> Any:
        self._held.append(model)
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
        )
