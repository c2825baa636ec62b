"""The entry of every stage: `python -m components.launch STAGE [--cycle K]`.

Reads params.yaml, sets what must be set before torch starts, runs the stage's `run` in one process or in several as the
Accelerate config says, and turns an error that the user can mend into one message and exit status 2.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from components import paths, status_file
from components.config import BestOfN, Params, PolicyGradientMethod, load_params
from components.config.accelerate import accelerate_config, torch_environment
from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError
from components.processes import die_with_parent, ranks

_TOLD_VARIABLE = "PROXIMAL_ERROR_TOLD"  # a file that the first process with an error makes
_SECONDS_TO_END = 20.0
_DISTRIBUTED_STAGES = ("sft", "reward_model", "judge", "alignment")
_STAGES = ("data_validation", *_DISTRIBUTED_STAGES, "selection", "evaluation", "promotion")


@click.command(help="Run one stage of the pipeline in this folder.")
@click.argument("stage", type=click.Choice(_STAGES))
@click.option("--cycle", type=int, help="Which cycle (stage alignment only).")
def main(stage: str, cycle: int | None) -> None:
    """Run one stage and exit with its status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("alembic", "mlflow", "httpx", "urllib3", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    status = 1
    is_rank = "RANK" in os.environ
    if not is_rank:
        status_file.begin()
    try:
        if (stage == "alignment") != (cycle is not None):
            raise ConfigError("--cycle belongs to the stage alignment, which needs it", where="command line")
        params = load_params(paths.PARAMS)
        status = _launch(stage, cycle, params)
    except ProximalError as error:
        status = USER_ERROR_STATUS
        if _is_first_to_tell():
            print(f"error: {error}", file=sys.stderr, flush=True)
    finally:
        if not is_rank:
            status_file.end(status)
    sys.exit(status)


def _launch(stage: str, cycle: int | None, params: Params) -> int:
    accelerate = accelerate_config(Path(params.compute.accelerate_config))
    processes = accelerate["num_processes"]
    _set_environment(getattr(params.compute.cpu_threads, stage, 1), accelerate)
    if stage in _DISTRIBUTED_STAGES:
        _require_shares(stage, params, processes)
        if processes > 1 and "RANK" not in os.environ:
            return _run_processes(stage, cycle, processes)
    module = "components.reward_model.run" if stage == "judge" else f"components.{stage}.run"
    run = _import_stage(module).run
    if stage == "alignment":
        run(params, cycle)
    elif stage in ("reward_model", "judge"):
        run(params, stage)
    else:
        run(params)
    return 0


def _import_stage(module: str) -> Any:
    """A stage's door, without looking for garbage meanwhile: what is imported stays, and the search costs a fifth."""
    gc.disable()
    imported = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    return imported


def _set_environment(cpu_threads: int, accelerate: dict[str, Any]) -> None:
    os.environ.update(torch_environment(accelerate))
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(cpu_threads)


def _require_shares(stage: str, params: Params, processes: int) -> None:
    """Every process takes part in every optimiser step, and rolls out as much as the others.

    Raises:
        ConfigError: the params do not give each of them its share.
    """
    section = params.method if stage == "alignment" else stage
    settings = getattr(params, section)
    if isinstance(settings, BestOfN):
        return  # nothing is trained
    if isinstance(settings, PolicyGradientMethod):
        rollouts, minibatches = settings.rollouts_per_iteration, settings.minibatches
        shared = rollouts % processes == 0 and rollouts // minibatches >= processes
        where, found = f"{section}.rollouts_per_iteration", f"{rollouts} in {minibatches} minibatches"
        expected = f"a multiple of num_processes ({processes}), and at least as many in a minibatch"
    else:
        shared = settings.batch_size >= processes
        where, found, expected = (
            f"{section}.batch_size",
            str(settings.batch_size),
            f"at least num_processes ({processes})",
        )
    if not shared:
        raise ConfigError(
            "the processes would not all have their share",
            where=f"{where}, with compute.accelerate_config {params.compute.accelerate_config}",
            expected=expected,
            found=found,
            do="change this key, or the number of processes",
        )


def _is_first_to_tell() -> bool:
    """Of the processes that meet the same error, one tells it."""
    if (told := os.environ.get(_TOLD_VARIABLE)) is None:
        return True
    try:
        Path(told).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _run_processes(stage: str, cycle: int | None, processes: int) -> int:
    """Start one process a rank, wait for them, and end them all with the first that fails, or with this one."""
    command = [sys.executable, "-m", "components.launch", stage]
    command += ["--cycle", str(cycle)] if cycle is not None else []

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        shared = {**os.environ, _TOLD_VARIABLE: str(Path(folder, "told"))}
        try:
            for rank in ranks(processes):
                environment = shared | rank
                # A session of its own: Ctrl-C reaches this process alone, which ends the others in order.
                workers.append(
                    subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=die_with_parent)
                )
            return _wait(workers)
        finally:
            _end(workers)


def _wait(workers: list[subprocess.Popen[bytes]]) -> int:
    """The status of the first that fails, or 0 when all are done."""
    while True:
        statuses = [worker.poll() for worker in workers]
        failed = [status for status in statuses if status]
        if failed or None not in statuses:
            return abs(failed[0]) + 128 * (failed[0] < 0) if failed else 0
        time.sleep(0.05)


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Ask those that still run to end, and kill those that do not."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    die_with_parent()  # without whoever asked for it, nobody would take its result
    main()
