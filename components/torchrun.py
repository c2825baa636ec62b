"""The processes of one stage on this machine, started and watched by torchrun's own agent, in this process.

In this process, for a `torchrun` of its own would exit with 1 whatever its ranks ended with, and would print a summary
where the user is to read one message.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.config.accelerate import AccelerateConfig
from components.errors import USER_ERROR_STATUS, ConfigError, EnvironmentFault
from components.lost_ranks import LOST_STATUS
from components.memory import likely_reason

_AGENT = "PROXIMAL_AGENT_PID"
_CPP_LOG = "TORCH_CPP_LOG_LEVEL"
_MEETING = "PET_RDZV_CONF"
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun names one for each rank
# Signals that a rank gets, or sends itself, because another rank failed.
_CONSEQUENCES = (-signal.SIGTERM, -signal.SIGABRT)


class RankFailure(Exception):
    """A rank did not reach its end.

    Args:
        status: what the stage exits with; negative where a signal of that number ended the rank.
        message: what the rank said of it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class RankKilled(EnvironmentFault):
    """A rank that a signal ended, and with it the stage."""


def agent_pid() -> int | None:
    """The process that started this rank; None where a `torchrun` or `accelerate launch` by hand did."""
    return int(found) if (found := os.environ.get(_AGENT)) else None


def leave_message(text: str, status: int | None = None) -> bool:
    """Leave word for the agent why this rank fails; whether there is an agent to read it.

    Args:
        status: what it is about to exit with, if it is not ended before: another rank, which loses it, may be seen to
            fail first.
    """
    if (named := os.environ.get(_ERROR_FILE)) is None:
        return False
    half = Path(f"{named}.half")  # the agent may look at any time
    half.write_text(json.dumps({"message": text, "timestamp": int(time.time()), "status": status}))
    half.replace(named)
    return True


@contextmanager
def without_traces() -> Iterator[None]:
    """Within it torch is first imported: its C++ part will not print, in this process, what an error says as well."""
    if _CPP_LOG in os.environ:
        yield
        return
    os.environ[_CPP_LOG] = "FATAL"
    try:
        yield
    finally:
        del os.environ[_CPP_LOG]  # ranks are to print it


def run_ranks(config: AccelerateConfig, module: str, arguments: list[str], meeting_s: float) -> None:
    """Run a Python module in all processes that the config gives this machine, until all are done.

    SIGTERM, SIGINT, SIGHUP and SIGQUIT end them all.

    Args:
        meeting_s: how long machines wait for each other; torchrun's own PET_RDZV_CONF goes before it.

    Raises:
        RankFailure: the first that failed, or the signal that came; the others were ended.
        RankKilled: the first that failed was killed.
        ConfigError: the environment's variables of torchrun contradict the config.
        EnvironmentFault: the machines do not find each other.
    """
    options = _rendezvous(config, meeting_s)
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    # What it logs of a failure, the message of the failure says better.
    for name in ("elastic", "launcher", "run"):
        logging.getLogger(f"torch.distributed.{name}").addHandler(logging.NullHandler())
        logging.getLogger(f"torch.distributed.{name}").propagate = False
    os.environ[_AGENT] = str(os.getpid())
    with tempfile.TemporaryDirectory(prefix="proximal-ranks-") as folder:
        options += [f"--nproc-per-node={config.processes_per_machine}", f"--log-dir={folder}", "--max-restarts=0"]
        asked = get_args_parser().parse_args([*options, "--module", module, *arguments])
        launch, command, words = config_from_args(asked)
        began = time.monotonic()
        try:
            elastic_launch(launch, command)(*words)
        except ChildFailedError as failed:
            raise _root(failed.failures, config.num_processes) from None
        except SignalException as received:
            raise RankFailure(-received.sigval, f"ended by {received.sigval.name}") from None
        except (RendezvousError, DistError) as fault:
            raise EnvironmentFault(
                "the machines do not find each other",
                where=" ".join(options),
                expected=f"{config.num_machines} machines that begin this stage within {_meeting_time(meeting_s)}, and "
                "a free port on the first of them",
                found=f"after {time.monotonic() - began:.0f} s: {_first_line(fault)}",
                do="see that the stage was started on every machine, and main_process_ip, main_process_port and "
                "machine_rank in the Accelerate config of each; if machines come late, raise that time",
            ) from fault


def _meeting_time(meeting_s: float) -> str:
    if found := os.environ.get(_MEETING):
        return f"the time of {_MEETING} ({found})"
    return f"{meeting_s:g} s (orchestration.meeting_timeout_seconds)"


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__


def _rendezvous(config: AccelerateConfig, meeting_s: float) -> list[str]:
    """torchrun's options by which the processes find each other.

    torchrun reads each option that is not given from the environment, as PET_ and its name: what is set there is left
    to it, so that one config serves all machines. How many there are is the config's alone: they change the result.
    """
    counts = {"PET_NNODES": config.num_machines, "PET_NPROC_PER_NODE": config.processes_per_machine}
    for variable, count in counts.items():
        if os.environ.get(variable, str(count)) != str(count):
            raise ConfigError(
                "the environment contradicts the Accelerate config",
                where=variable,
                expected=f"{count}, by num_machines {config.num_machines} and num_processes {config.num_processes}",
                found=os.environ[variable],
                do="change the config, which is part of what makes a result, or unset the variable",
            )
    if config.num_machines == 1:
        return ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    backend = os.environ.get("PET_RDZV_BACKEND") or config.rdzv_backend or "static"
    address, port = config.main_process_ip, config.main_process_port
    given: dict[str, Any] = {"nnodes": config.num_machines, "rdzv_backend": backend, "node_rank": config.machine_rank}
    if backend == "static":
        given |= {"master_addr": address, "master_port": port}
    elif address is not None and port is not None:
        given["rdzv_endpoint"] = f"{address}:{port}"
    else:
        given["rdzv_endpoint"] = None
    unset = {name: value for name, value in given.items() if f"PET_{name.upper()}" not in os.environ}
    if "PET_RDZV_ENDPOINT" in os.environ:
        unset = {name: value for name, value in unset.items() if not name.startswith("master_")}
    if lacking := [name for name, value in unset.items() if value is None]:
        raise ConfigError(
            "several machines need a place to meet",
            where="main_process_ip, main_process_port",
            expected="the address and port of the first machine",
            found=f"nothing, and no {', '.join(f'PET_{name.upper()}' for name in lacking)} in the environment",
            do="add them to the Accelerate config, or set these variables",
        )
    if _MEETING not in os.environ:
        # The static one has a time for all; c10d one until the store answers, and one until all machines are there.
        names = ("timeout",) if backend == "static" else ("read_timeout", "join_timeout")
        unset["rdzv_conf"] = ",".join(f"{name}={math.ceil(meeting_s)}" for name in names)
    return [f"--{name.replace('_', '-')}={value}" for name, value in unset.items()]


def _root(failures: dict[int, Any], count: int) -> RankFailure | RankKilled:
    """The failure that the others followed from: a mistake of the user's, a killed rank, or the first to leave word."""

    def order(item: tuple[int, Any]) -> tuple[int, float]:
        _, failure = item
        left_word = Path(failure.error_file)
        when = left_word.stat().st_mtime if left_word.exists() else 0.0
        if _status(failure) == USER_ERROR_STATUS and when:
            return 0, when
        if _status(failure) == LOST_STATUS:
            return 4, when
        if failure.exitcode < 0 and failure.exitcode not in _CONSEQUENCES:
            return 1, 0.0
        return (2 if when else 3), when

    rank, failure = min(failures.items(), key=order)  # of alike ones the first that torchrun saw
    if Path(failure.error_file).exists() and _status(failure) <= 128:  # above it tells of a signal, as below
        status = USER_ERROR_STATUS if _status(failure) == LOST_STATUS else _status(failure)
        return RankFailure(status, str(failure.message).rstrip())
    number = -failure.exitcode if failure.exitcode < 0 else failure.exitcode - 128  # as SIGTERM unwinds a stage
    if number > 0:
        name = signal.Signals(number).name
        return RankKilled(
            "a process of the stage was killed, and the others were ended",
            where=f"rank {rank} of {count}",
            expected="that all of them reach the end of the stage",
            found=f"it was killed by {name}",
            do=f"{likely_reason(name)}; then run the same command again, which goes on from what was finished",
        )
    return RankFailure(failure.exitcode, f"rank {rank} ended with status {failure.exitcode}")


def _status(failure: Any) -> int:
    """What a rank was about to exit with, by its own word, or else did."""
    said = failure.error_file_data.get("status")
    return said if isinstance(said, int) else int(failure.exitcode)
