"""Every stage: what it reads, where it writes, and which door does its work. The one place where inputs are named.

dvc.yaml says the same to DVC, and a test holds the two together.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.config import Params, RewardModel
from components.config.accelerate import AccelerateConfig
from components.errors import ConfigError
from components.memory import memory_faults
from components.place import Place
from components.tracking.recorder import StageRun
from components.tracking.runs import stage_run

# Whether each computes with a model, whatever it finds: promotion does only where there is a champion to measure.
STAGES = {
    "data_validation": False,
    "sft": True,
    "reward_model": True,
    "judge": True,
    "alignment": True,
    "selection": False,
    "evaluation": True,
    "promotion": False,
}
_DOORS = {"judge": "reward_model"}  # the others have a package of their own name
_AFTERWARDS = ("cycles", "selection", "evaluation", "promotion", "orchestration")  # sections that no cycle reads


@dataclass(frozen=True)
class Task:
    """One stage of one project.

    Args:
        inputs: the door's own names for the paths that it reads, a tuple of paths and tuples of paths.
        out: the folder that it writes whole or not at all; None where it writes none.
        work: the door, which tells the run what it does.
        require: refuses what must be there before all else; of other inputs a stage before may be to blame.
    """

    inputs: tuple[Any, ...]
    out: Path | None
    work: Callable[[StageRun], None]
    require: Callable[[], None] = lambda: None

    @property
    def paths(self) -> list[Path]:
        """All that it reads, each path once."""
        return list(dict.fromkeys(_paths(self.inputs)))

    def made(self) -> Iterator[Path]:
        """What lies in `out`, once it is there."""
        if self.out is not None:
            yield from sorted(self.out.iterdir())


def task_of(
    stage: str, params: Params, place: Place, cycle: int | None = None, config: AccelerateConfig | None = None
) -> Task:
    """A stage of the project at `place`.

    Args:
        cycle: of the stage alignment, from 1.
        config: what it computes with; None for what this process has begun with.

    Raises:
        ConfigError: the params have no such cycle.
    """
    door = _import(f"components.{_DOORS.get(stage, stage)}.run")
    shared, clean, policy = params.shared, place.clean, place.sft / "policy"
    if stage == "data_validation":
        inputs, out = door.Inputs(place.data), place.data_validation
        trained = params.trained_on_comparisons
        work = partial(door.run, params.data_validation, shared, inputs, out, trained_on_comparisons=trained)
        gathering = _import("components.data_validation.gathering")
        return Task(inputs, out, work, require=partial(gathering.require_raw_files, place.data))
    if stage == "sft":
        demonstrations: Path | None = clean / "demonstrations.jsonl"
        if params.sft.epochs == 0 and demonstrations and not demonstrations.exists():
            demonstrations = None
        inputs, out = door.Inputs(demonstrations, clean / "prompts_train.jsonl"), place.sft
        work = partial(door.run, params.sft, shared, inputs, out, work=place.work, compute=params.compute)
        return Task(inputs, out, work)
    if stage in ("reward_model", "judge"):
        rows = (clean / f"comparisons_{stage}{part}.jsonl" for part in ("", "_heldout", "_heldout_pairs"))
        out, section = (place.judge, params.judge) if stage == "judge" else (place.reward_model, params.reward_model)
        inputs = door.Inputs(policy, *rows, clean / "prompts_train.jsonl", _files_of(section, place))
        resume = {"work": place.work, "compute": params.compute}
        return Task(inputs, out, partial(door.run, section, shared, inputs, out, label=stage, **resume))
    if stage == "alignment":
        return _alignment(door, params, place, cycle)
    cycles = [place.alignment / number for number in params.cycles]
    selected = place.selection / "selection.json"
    if stage == "selection":
        inputs = door.Inputs(*(tuple(each / part for each in cycles) for part in ("policy", "metrics.json")))
        out = place.selection
        return Task(inputs, out, partial(door.run, params.selection, inputs, out))
    candidate, prompts = place.selection / "policy", clean / "prompts_test.jsonl"
    files = _scorers_files(params, place)
    if stage == "evaluation":
        scorers = (
            door.ScorerFiles(*(scorer / part for part in ("model", "metrics.json", "calibration.json")))
            for scorer in (place.reward_model, place.judge)
        )
        of_cycles = (
            tuple(each / part for each in cycles) for part in ("curve.json", "validation.jsonl", "checks.json")
        )
        report, table = place.data_validation / "report.json", place.selection / "cycles.json"
        inputs = door.Inputs(prompts, report, policy, candidate, *scorers, *of_cycles, selected, table, files)
        out = place.evaluation
        return Task(inputs, out, partial(door.run, params, inputs, out))
    files_of_suites = _import("components.promotion.suites").files_of_suites
    metrics = (scorer / "metrics.json" for scorer in (place.reward_model, place.judge))
    records, page = (place.evaluation / name for name in ("records.jsonl", "report.html"))
    suites = files_of_suites(params.promotion.suites, place.root)
    inputs = door.Inputs(candidate, selected, records, prompts, place.frozen, *metrics, page, files, suites)
    kept = {"folder": place.promotion, "lock": place.root / "dvc.lock"}
    return Task(inputs, None, partial(door.run, params, inputs, **kept, start=partial(_start, config)))


def perform(
    stage: str, params: Params, place: Place, cycle: int | None = None, config: AccelerateConfig | None = None
) -> None:
    """Do a stage's work, recorded in MLflow with what it read and made; see `task_of`.

    Raises:
        ProximalError: what the user can mend.
    """
    task = task_of(stage, params, place, cycle, config)
    task.require()
    if STAGES[stage]:
        _start(config)
    with stage_run(stage, params, task.paths, cycle, place.root) as tracked:
        if STAGES[stage] and config is not None:
            tracked.tags({"mixed_precision": config.mixed_precision})
        with memory_faults(stage, params.method if stage == "alignment" else stage, params):
            task.work(tracked)
        tracked.outputs(task.made())


def _start(config: AccelerateConfig | None) -> None:
    from components.training.accelerator import start_accelerator
    from components.training.requirements import require_devices

    if config is not None:
        require_devices(config)
    start_accelerator(config)


def _alignment(door: Any, params: Params, place: Place, cycle: int | None) -> Task:
    if str(cycle) not in params.cycles:
        raise ConfigError(
            "there is no such cycle",
            where="--cycle",
            expected=f"one of {', '.join(params.cycles)} (cycles in params.yaml)",
            found=str(cycle),
        )
    start = place.root / params.cycles[str(cycle)].start
    inputs = door.Inputs(
        start / "policy",
        start / "state" if cycle != 1 else None,  # a first cycle begins with a policy alone
        *place.frozen,
        *(
            place.clean / f"{name}.jsonl"
            for name in ("prompts_train", "prompts_validation", "comparisons_reward_model")
        ),
        _scorers_files(params, place),
    )
    out = place.alignment / str(cycle)
    work = partial(
        door.run,
        *(params.alignment, params.shared, inputs, out),
        method=params.method,
        cycle=cycle,
        work=place.work,
        params=params.values(without=_AFTERWARDS),
        compute=params.compute,
    )
    return Task(inputs, out, work)


def _scorers_files(params: Params, place: Place) -> tuple[Path, ...]:
    """What holds the functions and checkpoints of the reward model and of the judge, each once."""
    return tuple(dict.fromkeys((*_files_of(params.reward_model, place), *_files_of(params.judge, place))))


def _files_of(section: RewardModel, place: Place) -> tuple[Path, ...]:
    """The files that a scorer's functions and checkpoints lie in; none where it has no such part."""
    path = place.root / section.files
    if not section.reads_files:
        return ()
    if not path.is_dir():
        return (path,)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return tuple(file for file in files if "__pycache__" not in file.parts)  # what Python makes of them says nothing


def _paths(inputs: Any) -> Iterator[Path]:
    for part in inputs:
        if isinstance(part, tuple):
            yield from _paths(part)
        elif part is not None:
            yield part


def _import(module: str) -> Any:
    """Without looking for garbage meanwhile: what is imported stays, and the search costs a fifth."""
    gc.disable()
    imported = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    return imported
