"""The memory of a run, phase by phase, and what it means for a device: `proximal plan`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from components.config import Params
from components.config.accelerate import accelerate_config
from components.errors import ConfigError
from components.interface.plan.lengths import lengths_of, vocabulary_of_scratch
from components.interface.plan.models import shape_of
from components.interface.plan.phases import Simulation
from components.interface.plan.roles import Phase
from components.interface.plan.tokens import Tokens, tokens_of
from components.place import Place

GIB = 2**30
_MIB = 2**20
# What a stage takes on a CPU beside its tensors: libraries, kernels that were made, rows, freed memory that the C
# library keeps. Measured on the shipped world; see infra/decisions/0013-plan.md.
_BESIDE = {"sft": 880 * _MIB, "reward_model": 825 * _MIB, "judge": 775 * _MIB, "alignment": 900 * _MIB,
           "evaluation": 600 * _MIB}  # fmt: skip
_CONTEXT = GIB // 2  # of CUDA, on a GPU; not measured
_LOADS_AFTER_TRAINING = ("reward_model", "judge")  # the SFT policy
_FROZEN = ("reference", "reward model")


class Device(NamedTuple):
    """Where a run is to fit: this machine's main memory, or a GPU of so many bytes."""

    name: str
    memory: int
    is_gpu: bool


class Row(NamedTuple):
    """A phase on a device.

    Args:
        beside: what is there beside tensors.
    """

    phase: Phase
    beside: int

    @property
    def total(self) -> int:
        return self.phase.total + self.beside


class Estimate(NamedTuple):
    """What a run takes.

    Args:
        parameters: of the policy's architecture, tied ones once.
        lengths: where the lengths of sequences come from.
        knobs: changes of params and what the peak becomes with each, the best first; only where it does not fit.
    """

    rows: list[Row]
    device: Device
    parameters: int
    lengths: str
    tokens: list[Tokens]
    knobs: list[tuple[str, int]]

    @property
    def peak(self) -> Row:
        return max(self.rows, key=lambda row: row.total)

    @property
    def fits(self) -> bool:
        return self.peak.total <= self.device.memory

    def plain(self) -> dict[str, Any]:
        """As plain values for scripts, memory in bytes."""
        return {
            "parameters": self.parameters,
            "device": {"name": self.device.name, "bytes": self.device.memory},
            "fits": self.fits,
            "peak": {"stage": self.peak.phase.stage, "phase": self.peak.phase.name, "bytes": self.peak.total},
            "phases": [
                {
                    "stage": row.phase.stage,
                    "phase": row.phase.name,
                    "weights": row.phase.roles,
                    "gradients_and_optimizer": row.phase.training,
                    "activations_logits_cache": row.phase.work,
                    "beside": row.beside,
                    "bytes": row.total,
                }
                for row in self.rows
            ],
            "lengths": self.lengths,
            "tokens": [each._asdict() for each in self.tokens],
            "knobs": [{"change": change, "bytes": size} for change, size in self.knobs],
        }


def device_of(text: str) -> Device:
    """`cpu` for this machine, or a GPU by its GiB.

    Raises:
        ConfigError: neither.
    """
    if text == "cpu":
        return _this_machine()
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0.0 < size < float("inf"):
        raise ConfigError("there is no such device", where="--device", expected="cpu, or a number of GiB", found=text)
    return Device(f"a GPU of {size:g} GiB", round(size * GIB), is_gpu=True)


def _this_machine() -> Device:
    """Its main memory, or what a container may take of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (found := limit.read_text().strip()).isdigit():
        memory = min(memory, int(found))
    return Device("this machine", memory, is_gpu=False)


def estimate(params: Params, place: Place, device: Device) -> Estimate:
    """Run every phase on shapes alone.

    Raises:
        ConfigError: the checkpoint's config, its tokenizer or its template cannot be used.
    """
    simulation = _simulation(params, place)
    phases = {name: run() for name, run in simulation.phases().items()}
    rows = [_row(phase, params, device) for phase in phases.values()]
    found = Estimate(
        rows,
        device,
        phases["evaluation"].parameters,
        simulation.lengths.source,
        tokens_of(params, simulation.lengths) if simulation.lengths.are_rows else [],
        [],
    )
    return found if found.fits else found._replace(knobs=_knobs(params, place, device, found))


def _simulation(params: Params, place: Place) -> Simulation:
    config = accelerate_config(place.root / params.compute.accelerate_config)
    shape = shape_of(params.language_model, vocabulary_of_scratch(params.language_model, place))
    return Simulation(params, shape, lengths_of(params, place), mixed=config.mixed_precision == "bf16")


def _row(phase: Phase, params: Params, device: Device) -> Row:
    if device.is_gpu:
        if params.language_model.offload_frozen and phase.name == "updates":
            kept = {role: 0 if role in _FROZEN else size for role, size in phase.roles.items()}
            phase = phase._replace(roles=kept)
        return Row(phase, _CONTEXT)
    # A model's file is mapped into memory while it is loaded; what training has freed is not given back before.
    loaded = phase.whole_model if phase.stage in _LOADS_AFTER_TRAINING and phase.training else 0
    return Row(phase, _BESIDE[phase.stage] + loaded)


def _knobs(params: Params, place: Place, device: Device, found: Estimate) -> list[tuple[str, int]]:
    """What the peak's phase takes with one key changed, for every key that can help it."""
    name = found.peak.phase.key
    knobs = []
    for change, changed in _changes(params, found.peak.phase, device):
        phase = _simulation(changed, place).phases()[name]()
        total = _row(phase, changed, device).total
        if total < found.peak.total:
            knobs.append((change, total))
    return sorted(knobs, key=lambda knob: knob[1])


def _changes(params: Params, phase: Phase, device: Device) -> list[tuple[str, Params]]:
    model, found = params.language_model, []

    def with_model(change: str, **values: Any) -> None:
        found.append((f"language_model.{change}", _with(params, "language_model", values)))

    if model.adapter is None and model.checkpoint != "scratch":
        adapter = {"kind": "lora", "rank": 16, "alpha": 32, "target_modules": "all-linear"}
        with_model("adapter: {kind: lora, rank: 16, alpha: 32, target_modules: all-linear}", adapter=adapter)
    if model.dtype == "float32":
        with_model("dtype: bfloat16", dtype="bfloat16")
    if not model.gradient_checkpointing:
        with_model("gradient_checkpointing: true", gradient_checkpointing=True)
    if model.vocabulary_chunk is None:
        with_model("vocabulary_chunk: 8192", vocabulary_chunk=8192)
    if device.is_gpu and not model.offload_frozen and phase.name == "updates":
        with_model("offload_frozen: true", offload_frozen=True)
    section = params.method if phase.stage == "alignment" else phase.stage
    size = getattr(getattr(params, section, None), "microbatch_size", 1)
    if phase.name not in ("rollouts", "generation", "measurement") and size > 1:
        found.append(
            (f"{section}.microbatch_size: {size // 2}", _with(params, section, {"microbatch_size": size // 2}))
        )
    elif params.measurement.batch_size > 1:
        half = params.measurement.batch_size // 2
        found.append((f"measurement.batch_size: {half}", _with(params, "measurement", {"batch_size": half})))
    return found


def _with(params: Params, section: str, values: dict[str, Any]) -> Params:
    content = params.model_dump(mode="json")
    content[section] |= values
    return Params.model_validate(content)
