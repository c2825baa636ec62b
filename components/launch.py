"""The entry of every stage: `python -m components.launch STAGE [--cycle K]`.

Reads params.yaml, runs the stage here, or in several processes as the Accelerate config says, and turns an error that
the user can mend into one message and exit status 2.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from components import status_file
from components.config import Params, load_params
from components.config.accelerate import AccelerateConfig, accelerate_config
from components.config.shares import TRAINING_STAGES, require_shares
from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError
from components.measuring.rubric import load_rubric
from components.place import Place
from components.processes import die_with_parent
from components.scoring.require import require_scorers
from components.stage import arguments_of_a_stage, log_to_stderr, run_stage, set_up
from components.stages import STAGES
from components.torchrun import RankFailure, run_ranks

logger = logging.getLogger("proximal")


@click.command(help="Run one stage of the pipeline in this folder.")
@arguments_of_a_stage
def main(stage: str, cycle: int | None) -> None:
    """Run one stage and exit with its status: 128 and the signal's number where a signal ended it."""
    log_to_stderr()
    status_file.begin()
    status, message = 1, ""
    try:
        _launch(stage, cycle)
        status = 0
    except ProximalError as error:
        status, message = USER_ERROR_STATUS, f"error: {error}"
    except RankFailure as failure:
        status, message = failure.status if failure.status >= 0 else 128 - failure.status, failure.message
    except SystemExit as ended:  # SIGTERM unwinds a stage so
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if message:
            print(message, file=sys.stderr, flush=True)
        status_file.end(status)
    sys.exit(status)


def _launch(stage: str, cycle: int | None) -> None:
    if (stage == "alignment") != (cycle is not None):
        raise ConfigError("--cycle belongs to the stage alignment, which needs it", where="command line")
    params = load_params(Place().params)
    config = accelerate_config(Path(params.compute.accelerate_config))
    load_rubric(params.data)  # one that cannot be used is refused before anything is trained
    require_scorers(params, Place())
    require_shares(stage, params, config)
    if stage in TRAINING_STAGES and params.generation.engine != "own":
        from components.engines.vllm_require import require_engine

        require_engine(params, Place().root, on_cpu=config.use_cpu)
    if STAGES[stage] and config.reason:
        logger.info("%s", config.reason)
    set_up(stage, params, config)
    if stage in TRAINING_STAGES and config.num_processes > 1:
        _require_fit(params, config)  # here, and not by every rank
        run_ranks(config, "components.stage", [stage, *(["--cycle", str(cycle)] if cycle is not None else [])])
    else:
        run_stage(stage, cycle, params, config)


def _require_fit(params: Params, config: AccelerateConfig) -> None:
    from components.training.requirements import require_devices, require_layer_classes  # they import torch

    require_devices(config)
    require_layer_classes(params.language_model, config, Place().root)


if __name__ == "__main__":
    die_with_parent()  # without whoever asked for it, nobody would take its result
    main()
