"""What tests of a real vLLM share: where it is, a project whose model it takes, a server at an address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from components import supervise
from components.processes import free_port

ROOT = Path(__file__).resolve().parents[3]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
NEEDS_VLLM = [
    pytest.mark.skipif(not VLLM.exists(), reason="vLLM is not installed: make vllm"),
    pytest.mark.timeout(1800),
]
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"}
_ASKED: dict[str, Any] = {
    "sleeps": False,
    "requests_at_once": 8,
    "timeout_seconds": 300.0,
    "max_probe_gap_nats_per_token": 1e-3,
    "max_mismatch_kl_nats_per_token": 1e-3,
    "importance_weight_cap": 2.0,
}
STARTED: dict[str, Any] = _ASKED | {
    "engine": "vllm",
    "command": [str(VLLM)],
    "arguments": ["--enforce-eager", "--max-num-seqs", "16"],
    "environment": ON_A_CPU,
    "dtype": "float32",
    "start_timeout_seconds": 900.0,
}
MOVES = {"missing_eos": "none", "learning_rate": 1e-2}


def at(url: str, **changes: Any) -> dict[str, Any]:
    """The section `generation` for a server at an address."""
    return _ASKED | {"engine": "vllm_at_url", "url": url, "timeout_seconds": 60.0} | changes


def tiny_model(folder: Path, layers: int = 2) -> None:
    """Heads of 32 numbers are the smallest that vLLM computes with on a CPU."""
    import torch
    import transformers as hf

    from components.models.text import train_tokenizer

    train_tokenizer(["My printer laughs in the dark", "yes", "no", "ask", "go on"], 300).save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    shape = hf.LlamaConfig(vocab_size=300, initializer_range=0.2, max_position_embeddings=64, **sizes, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf.LlamaForCausalLM(shape).save_pretrained(folder)


@pytest.fixture
def project(raw_world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a checkpoint in models/tiny, as working directory."""
    folder = Path(shutil.copytree(raw_world, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(folder)
    tiny_model(Path("models/tiny"))
    return folder


@contextmanager
def serving(model: Path, log: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`vllm serve` as decision 0021 says that a server has to be started, until the block ends."""
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
             "--max-model-len", "64", "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs",
             "--enforce-eager", "--max-num-seqs", "16"]  # fmt: skip
    ours = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | ON_A_CPU
    environment |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as out:
        guarded = [sys.executable, "-P", supervise.__file__, str(os.getpid()), str(VLLM), "serve", str(model)]
        process = subprocess.Popen([*guarded, *words, *options], env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        assert wait_for(lambda: _answers(url) or process.poll() is not None, 900) and process.poll() is None, (
            log.read_text()[-3000:]
        )
        yield url, process
    finally:
        process.terminate()
        process.wait()


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of the condition, or its last one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def launch(*arguments: str) -> subprocess.Popen[str]:
    """`python -m components.launch ...` in the working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "components.launch", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def engines_left(process: psutil.Process | None = None) -> list[str]:
    """Processes of a vLLM that are below this one."""
    below = (process or psutil.Process()).children(recursive=True)
    return [each.name() for each in below if "vllm" in each.name().lower()]
