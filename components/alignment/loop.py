"""The cycle loop, the same for every method: iterations with a log line, a curve row and a checkpoint after each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from components.alignment import resumption
from components.alignment.method import CurveRow, Job, Learner, Source, Trainable
from components.artifacts import atomic_folder, read_json, reading, write_json
from components.config import Method
from components.errors import ArtifactError
from components.self_checks import FILE as CHECKS
from components.training.optimizer_state import load_optimizer, optimizer_state
from components.training.schedule import make_optimizer, make_schedule
from components.training.sharding import frame_of, gathered
from components.training.zero import prepare

logger = logging.getLogger("proximal")
OPTIMIZER = "optimizer.safetensors"  # in the work folder alone: every cycle begins with a new optimiser
_PROGRESS = Path("state", "progress.json")


def run_cycle(start: Callable[[Job, Source], Learner], job: Job) -> None:
    """Take the policy of the last cycle through this cycle's iterations.

    It goes on from `cycle.work` where a checkpoint lies there, else from `cycle.start`, and leaves in `cycle.work` the
    policy (policy/), what the next cycle needs to go on (state/), a row for every iteration (curve.json), what the
    cycle checked of itself (checks.json); and for this cycle alone to go on with, the optimiser's state (`OPTIMIZER`)
    and what tells whether all is as it was stored (`resumption`). All random numbers come from (seed, iteration), so
    that there is no generator state to keep.

    Raises:
        ArtifactError: what is stored at the start is damaged or of another method.
        TrainingError: a number is not finite, or a check fails; the last finished iteration is kept.
    """
    accelerator, cycle = job.accelerator, job.cycle
    is_resumed = (cycle.work / "state").exists()
    folder = cycle.work if is_resumed else cycle.start
    source = Source(folder, has_state=(folder / "state").exists(), is_new_cycle=not is_resumed)
    iteration = _iterations_done(folder, job.method) if source.has_state else 0
    learner = start(job, source)
    curve: list[CurveRow] = list(read_json(folder / "curve.json")) if is_resumed else []
    if is_resumed:
        logger.info("%s: cycle %d goes on after iteration %d", learner.name, cycle.number, iteration)
        with reading("list of checks", folder / CHECKS, "the checks that the cycle has made"):
            job.checks.go_on(read_json(folder / CHECKS), iteration)

    optimizer = schedule = frame = None
    if (trainable := learner.trainable()) is not None:
        frame = frame_of(accelerator, trainable.model)
        model, optimizer = prepare(
            accelerator, trainable.model, make_optimizer(trainable.groups, trainable.weight_decay)
        )
        if is_resumed:
            load_optimizer(folder / OPTIMIZER, trainable.model, optimizer)
        schedule = make_schedule(optimizer, trainable.groups, done=iteration)
        learner.begin(model, optimizer)
        if is_resumed:
            loaded = optimizer_state(trainable.model, optimizer)
            resumption.require_as_stored(job, learner, loaded, folder)

    end = cycle.number * learner.iterations_per_cycle
    while iteration < end:
        figures, seconds = learner.iterate(iteration)
        iteration += 1
        if schedule is not None:
            schedule.step()
        state: dict[str, Tensor] = {}
        if trainable is not None and optimizer is not None:
            # Each process may hold a part of it, so all of them take part in bringing it together.
            state = optimizer_state(trainable.model, optimizer)
        as_stored = resumption.as_stored(job, learner, state)
        resumption.require_one_model(job, as_stored["weights"], f"{learner.name}, iteration {iteration}", iteration)
        with _whole(accelerator, trainable, frame) as model:
            if accelerator.is_main_process:
                row: CurveRow = {"cycle": cycle.number, "iteration": iteration, **figures}
                curve.append(row)
                logger.info(
                    "%s: cycle %d, iteration %d of %d, reward %+.3f, kl %.2f nats%s%s",
                    *(learner.name, cycle.number, iteration, end, row["reward"], row["kl"]),
                    "".join(f", {name} {row[name]:.3g}" for name in learner.shown),
                    "".join(f", {taken:.1f} s {what}" for what, taken in seconds.items()),
                )
                cycle.report(row)
                with atomic_folder(cycle.work) as scratch:
                    learner.save(scratch, model)
                    write_json(
                        scratch / _PROGRESS, {"method": job.method, "iteration": iteration, **learner.progress()}
                    )
                    if state:
                        save_file(state, scratch / OPTIMIZER)
                    write_json(scratch / "curve.json", curve)
                    write_json(scratch / CHECKS, job.checks.rows())
                    write_json(scratch / resumption.FILE, as_stored)
        accelerator.wait_for_everyone()


def _whole(
    accelerator: Accelerator, trainable: Trainable | None, frame: nn.Module | None
) -> AbstractContextManager[nn.Module | None]:
    """What is trained, whole, in the first process."""
    if trainable is None or frame is None:
        return nullcontext()
    return gathered(accelerator, trainable.model, frame, everywhere=False)


def _iterations_done(folder: Path, method: Method) -> int:
    """How many iterations lie behind, over all cycles.

    Raises:
        ArtifactError: it is not stored there, or corrupt, or another method's.
    """
    path = folder / _PROGRESS
    with reading("progress", path, "method and iteration, a name and a number"):
        content = read_json(path)
        found, iteration = content["method"], content["iteration"]
        if not isinstance(iteration, int):
            raise TypeError(f"iteration: {iteration!r}")
    if found != method:
        raise ArtifactError(
            "a cycle cannot go on from what another method has left",
            where=str(path),
            expected=f"method {method}",
            found=str(found),
            do="run the cycles before it with this method: `proximal run`, or `dvc repro`",
        )
    return iteration
