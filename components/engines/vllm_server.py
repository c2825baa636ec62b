"""A vLLM server as a process of ours: started, waited for, and ended with us, whatever ends us."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import requests

from components import supervise
from components.config import VllmStarted
from components.errors import EnvironmentFault
from components.processes import free_port

MODEL = "policy"  # the name that the server gives its model
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
# It tells nobody of its use, and asks no hub for what lies here.
_VARIABLES = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
# It changes its weights while it runs.
_OF_ROLLOUTS = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
# Of the process that trains, and none of its children's business.
_OUR_OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Of its log: who says it and when; what is no fault; what names one.
_PREFIX = re.compile(r"^\(\w+ pid=\d+\)\s*(?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\])?")
_CALM = re.compile(r"\b(?:INFO|WARNING)\b")
_FAULT = re.compile(r"\b(?:\w*Error|error)\b")


class Server:
    """A running `vllm serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process, self.log = process, log
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(
        cls, settings: VllmStarted, folder: Path, log: Path, *, max_model_len: int, lora_rank: int | None
    ) -> Server:
        """Serve a model's folder, and wait until it answers.

        Raises:
            EnvironmentFault: the program is not there, ends, or does not answer in time.
        """
        port = free_port()
        command = serve_command(settings, folder, port, max_model_len=max_model_len, lora_rank=lora_rank)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            process = spawn(command, _OF_ROLLOUTS | settings.environment, out)
        server = cls(process, port, log)
        try:
            server._wait(settings.start_timeout_seconds)
        except BaseException:
            server.end()
            raise
        return server

    def end(self) -> None:
        """End the server and all its processes; nothing happens if it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def last_words(self) -> str:
        """What its log says of a fault, the last lines of it; but for those that only point to others above."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if not _CALM.search(line)]
        plain = [" ".join(_PREFIX.sub("", line).split()) for line in lines]
        named = [line for line in plain if _FAULT.search(line) and not line.startswith(("raise ", "Traceback"))]
        faults = [line for line in named if "root cause" not in line] or named or plain
        return " | ".join(line[-300:] for line in list(dict.fromkeys(faults))[-2:]) or "nothing"

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (status := self._process.poll()) is not None:
                raise self._fault(f"it ended with status {status}: {self.last_words()}")
            try:
                with requests.Session() as session:
                    session.trust_env = False
                    if session.get(f"{self.url}/health", timeout=5).ok:
                        return
            except requests.RequestException:
                pass
            time.sleep(0.5)
        raise self._fault(f"no answer within {seconds:g} seconds: {self.last_words()}")

    def _fault(self, found: str) -> EnvironmentFault:
        return EnvironmentFault(
            "vLLM does not start",
            where=f"generation.command (log: {self.log})",
            expected="a server that answers /health",
            found=found,
            do="read the log; more time is generation.start_timeout_seconds",
        )


def spawn(command: list[str], variables: Mapping[str, str], out: IO[Any]) -> subprocess.Popen[bytes]:
    """Start `vllm serve ...` so that its whole tree ends with us: its workers would live on without their server.

    Args:
        variables: of its environment, beside those that it always gets.
        out: where what it says goes.
    """
    environment = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    environment |= {**_VARIABLES, **variables}
    guarded = [sys.executable, "-P", supervise.__file__, str(os.getpid()), *command]
    return subprocess.Popen(guarded, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)


def serve_command(
    settings: VllmStarted, folder: Path, port: int, *, max_model_len: int, lora_rank: int | None
) -> list[str]:
    """How the server is started: by its own words it samples from the policy alone, and says with what logprobs.

    Args:
        lora_rank: of the adapters that it is to take; None for none.
    """
    options: dict[str, str] = {
        "--served-model-name": MODEL,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": settings.dtype,
        "--max-model-len": str(max_model_len),
        "--generation-config": "vllm",  # or the folder's own would shape the distribution, and end responses
        "--logprobs-mode": "processed_logprobs",  # at the sampling temperature
    }
    switches: list[str] = ["--enable-sleep-mode"] if settings.sleeps else []
    if lora_rank is not None:
        switches.append("--enable-lora")
        options["--max-lora-rank"] = str(next(rank for rank in (*_LORA_RANKS, lora_rank) if rank >= lora_rank))
    said = [word for option in options.items() for word in option]
    return [*settings.command, "serve", str(folder), *said, *switches, *settings.arguments]


def _is_ours(name: str) -> bool:
    return name in _OUR_OWN or name.startswith(("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "PYTHONPATH"))
