"""The entry of every stage: `python -m components.launch STAGE [--cycle K]`.

Reads params.yaml, sets what must be set before torch starts, runs the stage's `run` in one process or in several as the
Accelerate config says, and turns an error that the user can mend into one message and exit status 2.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components import paths
from components.config import Params, load_params
from components.errors import USER_ERROR_STATUS, ConfigError, EnvironmentFault, ProximalError

STATUS_FILE_VARIABLE = "PROXIMAL_STATUS_FILE"  # where the flow wants to read this process's exit status
_DISTRIBUTED_STAGES = ("sft", "reward_model", "judge", "ppo")
_STAGES = ("data_validation", *_DISTRIBUTED_STAGES, "selection", "evaluation", "promotion")


@click.command(help="Run one stage of the pipeline in this folder.")
@click.argument("stage", type=click.Choice(_STAGES))
@click.option("--cycle", type=int, help="Which PPO cycle (stage ppo only).")
def main(stage: str, cycle: int | None) -> None:
    """Run one stage and exit with its status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("alembic", "mlflow", "httpx", "urllib3", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    status = 1
    try:
        if (stage == "ppo") != (cycle is not None):
            raise ConfigError("--cycle belongs to the stage ppo, and ppo needs it", where="command line")
        params = load_params(paths.PARAMS)
        status = _launch(stage, cycle, params)
    except ProximalError as error:
        status = USER_ERROR_STATUS
        print(f"error: {error}", file=sys.stderr, flush=True)
    finally:
        if (status_file := os.environ.get(STATUS_FILE_VARIABLE)) and "RANK" not in os.environ:
            Path(status_file).write_text(str(status))
    sys.exit(status)


def _launch(stage: str, cycle: int | None, params: Params) -> int:
    accelerate = _accelerate_config(Path(params.compute.accelerate_config))
    processes = int(accelerate["num_processes"])
    _set_environment(getattr(params.compute.cpu_threads, stage, 1), accelerate)
    if processes > 1 and stage in _DISTRIBUTED_STAGES and "RANK" not in os.environ:
        return _run_processes(stage, cycle, processes)
    module = "components.reward_model.run" if stage == "judge" else f"components.{stage}.run"
    run = importlib.import_module(module).run
    if "RANK" in os.environ and int(os.environ["WORLD_SIZE"]) != processes:
        raise EnvironmentFault(
            "not all processes started",
            where=params.compute.accelerate_config,
            expected=f"{processes} processes",
            found=os.environ["WORLD_SIZE"],
        )
    if stage == "ppo":
        run(params, cycle)
    elif stage in ("reward_model", "judge"):
        run(params, stage)
    else:
        run(params)
    return 0


def _accelerate_config(path: Path) -> dict[str, Any]:
    """The Accelerate config file that params name.

    Raises:
        ConfigError: absent, or without one of the keys read here.
    """
    try:
        content = YAML(typ="safe").load(path)
        missing = [key for key in ("num_processes", "mixed_precision", "use_cpu") if key not in content]
    except (OSError, YAMLError, TypeError) as fault:
        raise ConfigError(
            "the Accelerate config cannot be read",
            where=f"compute.accelerate_config: {path}",
            expected="a file that `accelerate config` makes, such as those in infra/accelerate/",
            found=" ".join(str(fault).split()),
        ) from fault
    if missing:
        raise ConfigError(
            "the Accelerate config lacks a key", where=str(path), expected=", ".join(missing), found="no such key"
        )
    return dict(content)


def _set_environment(cpu_threads: int, accelerate: dict[str, Any]) -> None:
    """Set what torch reads when it is first imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a stage says itself how far it is
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(cpu_threads)
    # Waiting threads sleep. By default they spin, which takes the core away from whoever they wait for as soon as the
    # machine has other work, and costs an idle machine nothing less; see infra/decisions.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # One instruction set on every x86 machine: without these two, sums are split differently on a CPU with other
    # vector units and the same params give other bytes. Costs little; see infra/decisions.
    os.environ["MKL_CBWR"] = "AVX2"
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    os.environ["ACCELERATE_MIXED_PRECISION"] = str(accelerate["mixed_precision"])
    os.environ["ACCELERATE_USE_CPU"] = str(accelerate["use_cpu"]).lower()


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _run_processes(stage: str, cycle: int | None, processes: int) -> int:
    """Start one process a rank through torchrun, in a session of their own, and end them all with this one."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["-m", "components.launch", stage] + (["--cycle", str(cycle)] if cycle is not None else [])
    group = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_parent)

    def end_all(number: int, _frame: object) -> None:
        os.killpg(group.pid, signal.SIGTERM)
        try:
            group.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(group.pid, signal.SIGKILL)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_all)
    return group.wait()


if __name__ == "__main__":
    main()
