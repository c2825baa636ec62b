"""One stage in this process, alone or as one rank of several: `python -m components.stage STAGE [--cycle K]`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import click

from components.config import Params, load_params
from components.config.accelerate import AccelerateConfig, accelerate_config, torch_environment
from components.errors import USER_ERROR_STATUS, ProximalError
from components.lost_ranks import LOST_STATUS, is_of_a_lost_rank, lost_rank
from components.place import Place
from components.processes import die_with_parent
from components.stages import STAGES, perform
from components.torchrun import agent_pid, leave_message


def arguments_of_a_stage(command: Callable[..., None]) -> Callable[..., None]:
    """What names a stage on a command line."""
    cycle = click.option("--cycle", type=int, help="Which cycle (stage alignment only).")
    return click.argument("stage", type=click.Choice(list(STAGES)))(cycle(command))


class _Lines(logging.Formatter):
    """A stage's lines as they are, and its warnings by that word: a terminal keeps them in sight."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


def log_to_stderr() -> None:
    """What a stage says of itself."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_Lines("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[shown])
    for noisy in ("alembic", "mlflow", "httpx", "urllib3", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_up(stage: str, params: Params, config: AccelerateConfig) -> None:
    """What must be said before torch and its companions are imported."""
    # Accelerate reads many settings from there, some before those that it is given: the config alone is to be obeyed.
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]
    os.environ.update(torch_environment(getattr(params.compute.cpu_threads, stage, 1)))
    if config.gpu_ids is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = config.gpu_ids


def run_stage(stage: str, cycle: int | None, params: Params, config: AccelerateConfig) -> None:
    """Do the stage's work in the present folder."""
    perform(stage, params, Place(), cycle, config)


@click.command(help="Run one rank of a stage; `python -m components.launch` starts them all.")
@arguments_of_a_stage
def main(stage: str, cycle: int | None) -> None:
    """Run one rank; what ends it is told by whoever started all of them, for one of them."""
    log_to_stderr()
    try:
        params = load_params(Place().params)
        config = accelerate_config(Path(params.compute.accelerate_config))
        set_up(stage, params, config)
        run_stage(stage, cycle, params, config)
    except ProximalError as error:
        if not leave_message(f"error: {error}", USER_ERROR_STATUS):
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR_STATUS)
    except RuntimeError as fault:
        if not is_of_a_lost_rank(fault):
            raise
        if not leave_message(f"error: {lost_rank(fault)}", LOST_STATUS):
            print(f"error: {lost_rank(fault)}", file=sys.stderr, flush=True)
        sys.exit(LOST_STATUS)


def _tell_the_agent(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours: its traceback is for the agent, which shows the first rank's alone."""
    if not leave_message("".join(traceback.format_exception(kind, fault, trace))):
        sys.__excepthook__(kind, fault, trace)


if __name__ == "__main__":
    die_with_parent(agent_pid())  # torchrun gives its ranks a session of their own, and nothing that ends them with it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt cannot raise where a rank waits for another
    sys.excepthook = _tell_the_agent
    main()
