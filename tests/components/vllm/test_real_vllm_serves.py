"""`proximal serve --vllm`: a real vLLM answers OpenAI's own client as the policy does. `make test-vllm`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
import torch
import transformers as hf
from real_vllm import NEEDS_VLLM, ON_A_CPU, ROOT, VLLM, engines_left, wait_for

from components.engines.answering import Answerer
from components.models.loading import save_policy
from components.models.text import Codec, TextFormat, train_tokenizer
from components.processes import free_port

pytestmark = NEEDS_VLLM
PROMPT = "My printer laughs in the dark"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """One without a chat template; heads of 32 numbers are the smallest that vLLM computes with on a CPU."""
    tokenizer = train_tokenizer([PROMPT, "yes", "no", "ask", "go on"], 300)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape = hf.LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.2, max_position_embeddings=128, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = Codec(tokenizer, TextFormat("Human: {prompt}\nAssistant:", 60, 12))
        save_policy(hf.LlamaForCausalLM(shape), codec, tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def server(policy: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command at work, greedy by its params, with a folder of its own for temporary files."""
    (tmp_path / "tmp").mkdir()
    port = free_port()
    words = [sys.executable, "-m", "flows.cli", "serve", str(policy), "--port", str(port), "--vllm", str(VLLM)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--vllm-arguments", "--enforce-eager --max-num-seqs 16"],
            cwd=ROOT,
            env={**os.environ, **ON_A_CPU, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
            stdout=log,
            stderr=log,
        )

    def answers() -> bool:
        try:
            return process.poll() is not None or requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        assert wait_for(answers, 900) and process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        yield process, f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def test_openais_client_gets_the_policys_answers_and_nothing_is_left_behind(
    policy: Path, server: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    process, url = server
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=300)
    [answer] = Answerer(policy).answer([PROMPT], temperature=0, seed=1, max_response_tokens=10)
    expected = answer.rstrip("\ufffd")  # vLLM ends with the last whole character
    asked: dict[str, Any] = {
        "model": "policy",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        "max_tokens": 10,
    }
    whole = client.chat.completions.create(**asked)
    assert [str(whole.choices[0].message.content).strip()] == [expected] and expected
    parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(parts).strip() == expected and sum(map(bool, parts)) > 1
    # Without numbers in the request it samples at the params' own temperature: another answer each time.
    named = {name: value for name, value in asked.items() if name not in ("temperature", "max_tokens")}
    drawn = {str(client.chat.completions.create(**named).choices[0].message.content) for _ in range(4)}
    assert len(drawn) > 1
    with pytest.raises(openai.BadRequestError, match="takes one message, of the role user; asked: user, user"):
        client.chat.completions.create(**{**asked, "messages": asked["messages"] * 2})
    with pytest.raises(openai.NotFoundError, match="other"):
        client.chat.completions.create(**{**asked, "model": "other"})
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert engines_left() == []
    assert list((tmp_path / "tmp").glob("proximal-serve-*")) == []
