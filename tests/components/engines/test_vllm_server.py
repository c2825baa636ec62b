"""The process of a vLLM that is started here: how it is asked to serve, waited for, and ended with all that it started.

A script takes its place; the real one is started in tests/components/vllm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.config import Params, VllmStarted
from components.engines.vllm_require import require_engine
from components.engines.vllm_server import Server, serve_command
from components.errors import ConfigError, EnvironmentFault

ROOT = Path(__file__).resolve().parents[3]
STARTED = {
    "engine": "vllm",
    "command": ["vllm"],
    "arguments": ["--enforce-eager"],
    "environment": {"OF_PARAMS": "7"},
    "dtype": "bfloat16",
    "start_timeout_seconds": 60.0,
    "sleeps": False,
    "requests_at_once": 8,
    "timeout_seconds": 60.0,
    "max_probe_gap_nats_per_token": 0.1,
    "max_mismatch_kl_nats_per_token": 0.01,
    "importance_weight_cap": None,
}
# It has a worker in a session of its own, as vLLM has, and says by whom it was started.
SERVES = """
import http.server, json, os, subprocess, sys
worker = subprocess.Popen(["sleep", "300"], start_new_session=True)
open("told.json", "w").write(json.dumps({"worker": worker.pid, "variables": dict(os.environ)}))
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answers).serve_forever()
"""
# as vLLM does: the worker says what is wrong, and who waited for it that something is
FAILS = """
import sys
print("(APIServer pid=1) WARNING 11-28 23:59:04 [a.py:1] This can cause errors like OSError", file=sys.stderr)
for _ in range(2):
    print("(Worker pid=3) ERROR 11-28 23:59:04 [b.py:1]     raise ValueError(", file=sys.stderr)
    print("(Worker pid=3) ERROR 11-28 23:59:04 [b.py:1] ValueError: no memory for the cache", file=sys.stderr)
print("(EngineCore pid=2) ERROR 11-28 23:59:04 [c.py:1] Traceback (most recent call last):", file=sys.stderr)
print("RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def settings(tiny_params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Of a server that is a script: settings(script, **changes)."""
    monkeypatch.chdir(tmp_path)

    def of(script: str, **changes: Any) -> VllmStarted:
        Path("script.py").write_text(script)
        generation = STARTED | {"command": [sys.executable, "script.py"]} | changes
        found = tiny_params(generation=generation).generation
        assert isinstance(found, VllmStarted)
        return found

    return of


def start(settings: VllmStarted) -> Server:
    return Server.start(settings, Path("model"), Path("engine/server.log"), max_model_len=30, lora_rank=None)


def told() -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(Path("told.json").read_text())
    return found


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_it_is_told_to_sample_from_the_policy_alone(settings: Callable[..., Any]) -> None:
    words = serve_command(settings(SERVES, sleeps=True), Path("model"), 4321, max_model_len=30, lora_rank=9)
    assert words[2:4] == ["serve", "model"] and words[-1] == "--enforce-eager"
    pairs = set(zip(words, words[1:], strict=False))
    assert {
        ("--generation-config", "vllm"),
        ("--logprobs-mode", "processed_logprobs"),
        ("--dtype", "bfloat16"),
        ("--max-model-len", "30"),
        ("--port", "4321"),
        ("--max-lora-rank", "16"),  # the next that it has kernels for
    } <= pairs
    assert "--enable-lora" in words and "--enable-sleep-mode" in words


def test_it_is_started_with_its_variables_and_ended_with_its_workers(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    server = start(settings(SERVES))
    variables, worker = told()["variables"], told()["worker"]
    assert variables["OF_PARAMS"] == "7" and variables["VLLM_SERVER_DEV_MODE"] == "1"
    assert not {"RANK", "ACCELERATE_USE_CPU", "OMP_NUM_THREADS"} & set(variables)  # of the process that trains
    assert psutil.pid_exists(worker)
    server.end()
    assert ended(worker)
    server.end()  # once more does nothing


def test_it_dies_with_whoever_started_it(settings: Callable[..., Any]) -> None:
    """By SIGKILL, of which no process is told."""
    made = settings(SERVES)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom components.config import VllmStarted\n"
        "from components.engines.vllm_server import Server\n"
        f"settings = VllmStarted.model_validate({made.model_dump()!r})\n"
        "Server.start(settings, Path('model'), Path('engine/server.log'), max_model_len=30, lora_rank=None)\n"
        "print('up', flush=True)\ntime.sleep(300)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        worker = told()["worker"]
        assert psutil.pid_exists(worker)
        process.kill()
    assert ended(worker)


def test_one_that_fails_says_so_by_its_log(settings: Callable[..., Any]) -> None:
    with pytest.raises(EnvironmentFault, match="vLLM does not start") as caught:
        start(settings(FAILS))
    found = caught.value.found
    assert "status 3" in found and found.endswith("3: ValueError: no memory for the cache")
    assert "server.log" in caught.value.where


def test_one_that_never_answers_is_ended(settings: Callable[..., Any]) -> None:
    silent = SERVES.split("class Answers")[0] + "import time; time.sleep(300)"
    with pytest.raises(EnvironmentFault, match="vLLM does not start") as caught:
        start(settings(silent, start_timeout_seconds=3.0))
    assert "3 seconds" in caught.value.found
    assert ended(told()["worker"])


def test_a_program_that_is_not_there_is_refused_before_anything(tiny_params: Callable[..., Params]) -> None:
    params = tiny_params(generation=STARTED | {"command": [".venv-none/bin/vllm"]})
    with pytest.raises(ConfigError, match="vLLM is not installed there") as caught:
        require_engine(params, Path(), on_cpu=True)
    assert caught.value.found == ".venv-none/bin/vllm"
    there = STARTED | {"command": ["sh"]}
    require_engine(tiny_params(generation=there), Path(), on_cpu=True)
    with pytest.raises(ConfigError, match="nothing to give back"):
        require_engine(tiny_params(generation=there | {"sleeps": True}), Path(), on_cpu=True)
    require_engine(tiny_params(generation=there | {"sleeps": True}), Path(), on_cpu=False)
