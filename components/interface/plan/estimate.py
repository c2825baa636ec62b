"""The memory of a run, phase by phase, and what it means for a device: `proximal plan`."""

from __future__ import annotations

from typing import Any, NamedTuple

from components.config import Params, VllmStarted
from components.config.accelerate import AccelerateConfig, accelerate_config
from components.interface.plan.beside import beside, offloaded
from components.interface.plan.device import Device
from components.interface.plan.lengths import lengths_of, vocabulary_of_scratch
from components.interface.plan.models import shape_of
from components.interface.plan.phases import Simulation
from components.interface.plan.processes import of_one_process, on_one_machine
from components.interface.plan.roles import Phase
from components.interface.plan.seconds import Seconds, seconds_of, speed_of
from components.interface.plan.server import Server, server_of
from components.interface.plan.tokens import Tokens, tokens_of
from components.place import Place


class Row(NamedTuple):
    """A phase on a device.

    Args:
        phase: as one process has it.
        beside: what is there beside tensors, in one process.
        processes: how many of them share the device's memory: on a CPU those of a machine, on GPUs one.
        server: what a vLLM server takes of it meanwhile.
    """

    phase: Phase
    beside: int
    processes: int = 1
    server: int = 0

    @property
    def of_process(self) -> int:
        return self.phase.total + self.beside

    @property
    def total(self) -> int:
        return self.processes * self.of_process + self.server


class Estimate(NamedTuple):
    """What a run takes.

    Args:
        parameters: of the policy's architecture, tied ones once.
        lengths: where the lengths of sequences come from.
        seconds: of stages, where the device's speed and the rows are known.
        knobs: changes of params and what the peak becomes with each, the best first; only where it does not fit.
        server: a vLLM server that is started on the device; None for none.
    """

    rows: list[Row]
    device: Device
    parameters: int
    lengths: str
    tokens: list[Tokens]
    seconds: list[Seconds]
    knobs: list[tuple[str, int]]
    server: Server | None = None

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
                    "processes": row.processes,
                    "server": row.server,
                    "bytes": row.total,
                }
                for row in self.rows
            ],
            "server": None if self.server is None else {**self.server._asdict(), "bytes": self.server.total},
            "lengths": self.lengths,
            "tokens": [each._asdict() for each in self.tokens],
            "seconds": [each._asdict() for each in self.seconds],
            "knobs": [{"change": change, "bytes": size} for change, size in self.knobs],
        }


def estimate(params: Params, place: Place, device: Device) -> Estimate:
    """Run every phase on shapes alone.

    Raises:
        ConfigError: the checkpoint's config, its tokenizer or its template cannot be used.
    """
    config = accelerate_config(place.root / params.compute.accelerate_config)
    simulation = _simulation(params, place, config)
    phases = {name: run() for name, run in simulation.phases().items()}
    server = _server(simulation, params, phases["evaluation"], device, config)
    rows = [_row(phase, params, device, config, server) for phase in phases.values()]
    tokens = tokens_of(params, simulation.lengths) if simulation.lengths.are_rows else []
    found = Estimate(
        rows,
        device,
        phases["evaluation"].parameters,
        simulation.lengths.source,
        tokens,
        seconds_of(tokens, phases["evaluation"], params, config, device, speed_of(device, config)) if tokens else [],
        [],
        server,
    )
    return found if found.fits else found._replace(knobs=_knobs(params, place, device, config, found))


def _simulation(params: Params, place: Place, config: AccelerateConfig) -> Simulation:
    shape = shape_of(params.language_model, vocabulary_of_scratch(params.language_model, place))
    return Simulation(params, shape, lengths_of(params, place), mixed=config.mixed_precision == "bf16")


def _server(
    simulation: Simulation, params: Params, phase: Phase, device: Device, config: AccelerateConfig
) -> Server | None:
    """Args: phase: of the params, any: it knows how many parameters the architecture has."""
    return server_of(params, simulation.shape, phase.parameters, device, config.processes_per_machine)


def _row(phase: Phase, params: Params, device: Device, config: AccelerateConfig, server: Server | None) -> Row:
    # another engine gets whole weights, however ours are gathered
    gathers = params.compute.gather_for_generation or params.generation.engine != "own"
    mine = of_one_process(offloaded(phase, params, device), config, gather_for_generation=gathers)
    processes = 1 if device.is_gpu else on_one_machine(phase.stage, config)
    return Row(mine, beside(mine, device), processes, 0 if server is None else server.of_phase(phase))


def _knobs(
    params: Params, place: Place, device: Device, config: AccelerateConfig, found: Estimate
) -> list[tuple[str, int]]:
    """What the peak's phase takes with one key changed, for every key that can help it."""
    name = found.peak.phase.key
    knobs = []
    for change, changed in _changes(params, found.peak.phase, device):
        simulation = _simulation(changed, place, config)
        phase = simulation.phases()[name]()
        total = _row(phase, changed, device, config, _server(simulation, changed, phase, device, config)).total
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
    if device.is_gpu and not model.offload_frozen and phase.name in ("rollouts", "updates"):
        with_model("offload_frozen: true", offload_frozen=True)
    generation = params.generation
    if isinstance(generation, VllmStarted) and phase.stage == "alignment":
        if device.is_gpu and not generation.sleeps:
            found.append(("generation.sleeps: true", _with(params, "generation", {"sleeps": True})))
        if not any(word.startswith("--gpu-memory-utilization") for word in generation.arguments):
            arguments = [*generation.arguments, "--gpu-memory-utilization=0.4"]
            found.append(
                (f"generation.arguments: {arguments[-1]}", _with(params, "generation", {"arguments": arguments}))
            )
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
