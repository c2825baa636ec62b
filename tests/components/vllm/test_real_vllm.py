"""PPO with rollouts of a real vLLM on this machine's CPU: `make test-vllm`; skipped where it is not installed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.artifacts import read_json
from components.config import Params
from components.models.text import train_tokenizer
from components.place import Place
from components.stages import perform

VLLM = Path(__file__).resolve().parents[3] / ".venv-vllm" / "bin" / "vllm"
pytestmark = [
    pytest.mark.skipif(not VLLM.exists(), reason="vLLM is not installed: make vllm"),
    pytest.mark.timeout(1800),
]
GENERATION: dict[str, Any] = {
    "engine": "vllm",
    "command": [str(VLLM)],
    "arguments": ["--enforce-eager", "--max-num-seqs", "16"],
    "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"},
    "dtype": "float32",
    "start_timeout_seconds": 900.0,
    "sleeps": False,
    "requests_at_once": 8,
    "timeout_seconds": 300.0,
    "max_probe_gap_nats_per_token": 1e-3,
    "max_mismatch_kl_nats_per_token": 1e-3,
    "importance_weight_cap": 2.0,
}
# heads of 32 numbers are the smallest that vLLM computes with on a CPU
SHAPE = {"hidden_size": 64, "intermediate_size": 64, "layers": 1, "attention_heads": 2}


@pytest.fixture
def project(
    raw_world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_model: Callable[..., Any]
) -> Path:
    """A project with a checkpoint in models/tiny, as working directory."""
    import transformers as hf

    folder = Path(shutil.copytree(raw_world, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(folder)
    train_tokenizer(["My printer laughs in the dark", "yes", "no", "ask", "go on"], 300).save_pretrained("models/tiny")
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    shape = hf.LlamaConfig(vocab_size=300, initializer_range=0.2, max_position_embeddings=64, **sizes, **ids)
    hf.LlamaForCausalLM(shape).save_pretrained("models/tiny")
    return folder


@pytest.mark.parametrize("trained_as", ["whole weights", "adapter"])
def test_ppo_learns_from_what_vllm_samples(
    project: Path, change_params: Callable[..., Params], trained_as: str, caplog: pytest.LogCaptureFixture
) -> None:
    model: dict[str, Any] = {"scratch": SHAPE}
    if trained_as == "adapter":
        adapter = {"kind": "rslora", "rank": 4, "alpha": 8, "target_modules": "all-linear"}
        model = {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny", "adapter": adapter}
    params = change_params(
        language_model=model,
        generation=GENERATION,
        policy_gradient={"missing_eos": "none", "learning_rate": 1e-2},
    )
    with caplog.at_level(logging.INFO, logger="proximal"):
        for stage, cycle in (("sft", None), ("reward_model", None), ("judge", None), ("alignment", 1)):
            perform(stage, params, Place(), cycle)
    print(*(line for line in caplog.messages if "ppo" in line), sep="\n")
    curve = read_json(Place().alignment / "1" / "curve.json")
    print(*curve, sep="\n")
    assert len(curve) == 3 and curve[-1]["kl"] > 0.05  # it has moved, and so there was something to bring
    for row in curve:  # float32 in both engines: what is left is the order of sums
        assert row["engine_gap"] < 1e-4 and row["mismatch_max"] < 1e-3 and row["mismatch_kl"] < 1e-6
        assert row["importance_weight"] == pytest.approx(1.0, abs=1e-4)
    left = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in left if "vllm" in name.lower()]
    assert not list(Place().work.glob("*.engine"))
