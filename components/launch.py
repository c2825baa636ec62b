"""The entry of every stage: `python -m components.launch STAGE [--cycle K]`; of DVC's stage alignment@K without K.

Reads params.yaml, runs the stage here, or in several processes as the Accelerate config says, and turns an error that
the user can mend into one message and exit status 2.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from components import status_file
from components.config import Params, load_params
from components.config.accelerate import AccelerateConfig, accelerate_config
from components.config.shares import SHARED_STAGES, TRAINING_STAGES, require_shares
from components.errors import USER_ERROR_STATUS, ConfigError, ProximalError
from components.measuring.rubric import load_rubric
from components.place import Place
from components.processes import die_with_parent
from components.scoring.require import require_scorers
from components.stage import arguments_of_a_stage, log_to_stderr, run_stage, set_up
from components.stages import STAGES
from components.torchrun import RankFailure, RankKilled, run_ranks, without_traces

logger = logging.getLogger("proximal")


@click.command(help="Run one stage of the pipeline in this folder.")
@arguments_of_a_stage
def main(stage: str, cycle: int | None) -> None:
    """Run one stage and exit with its status: 128 and the signal's number where a signal ended this process.

    A rank that was killed is told of like all that the user can mend; the flow tries the stage once more.
    """
    log_to_stderr()
    status_file.begin()
    status, message, again = 1, "", False
    try:
        _launch(stage, _cycle_of_dvc() if stage == "alignment" and cycle is None else cycle)
        status = 0
    except ProximalError as error:
        status, message = USER_ERROR_STATUS, f"error: {error}"
        again = isinstance(error, RankKilled)
    except RankFailure as failure:
        status, message = failure.status if failure.status >= 0 else 128 - failure.status, failure.message
    except SystemExit as ended:  # SIGTERM unwinds a stage so
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if message:
            print(message, file=sys.stderr, flush=True)
        status_file.end(status, again=again)
    sys.exit(status)


def _cycle_of_dvc() -> int | None:
    """The cycle by the name of the stage that DVC runs, e.g. alignment@2; None where DVC does not run this."""
    stage = os.environ.get("DVC_STAGE", "")
    if "@" not in stage:
        return None
    key = stage.partition("@")[2]
    if not (key.isascii() and key.isdigit()):
        raise ConfigError("a cycle's key is no number", where="cycles", expected="numbered '1', '2', ... in order",
                          found=repr(key), do="mend the key in params.yaml")  # fmt: skip
    return int(key)


def _launch(stage: str, cycle: int | None) -> None:
    if (stage == "alignment") != (cycle is not None):
        raise ConfigError("--cycle belongs to the stage alignment, which needs it", where="command line")
    params = load_params(Place().params)
    config = accelerate_config(Path(params.compute.accelerate_config))
    load_rubric(params.data)  # one that cannot be used is refused before anything is trained
    require_scorers(params, Place())
    require_shares(stage, params, config)
    if stage == "promotion":
        from components.promotion.suites import require_suites

        require_suites(params.promotion.suites, Place().root)
    if stage in TRAINING_STAGES and params.generation.engine != "own":
        from components.engines.vllm_require import require_engine

        require_engine(params, Place().root, on_cpu=config.use_cpu)
    if STAGES[stage] and config.reason:
        logger.info("%s", config.reason)
    set_up(stage, params, config)
    if stage in SHARED_STAGES and config.num_processes > 1:
        _require_fit(params, config)  # here, and not by every rank
        words = [stage, *(["--cycle", str(cycle)] if cycle is not None else [])]
        run_ranks(config, "components.stage", words, params.orchestration.meeting_timeout_seconds)
    else:
        run_stage(stage, cycle, params, config)


def _require_fit(params: Params, config: AccelerateConfig) -> None:
    with without_traces():  # it imports torch
        from components.training.requirements import require_deepspeed, require_devices, require_layer_classes

    require_deepspeed(config)
    require_devices(config)
    require_layer_classes(params.language_model, config, Place().root)
    if config.deepspeed_config is not None and not config.use_cpu:
        logger.warning(
            "%s: steps by DeepSpeed were tried on two CPU ranks, never on GPUs; hold a first run against FSDP's",
            params.compute.accelerate_config,
        )


if __name__ == "__main__":
    die_with_parent()  # without whoever asked for it, nobody would take its result
    main()
