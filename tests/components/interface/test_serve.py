"""`proximal serve`, asked by OpenAI's own client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from architectures import random_causal_model
from chats import MADE, tokenizer_of
from click.testing import CliRunner

from components.engines.answering import Answerer
from components.errors import ArtifactError, ConfigError, EnvironmentFault
from components.interface import serve
from components.interface.serve_vllm import Vllm
from components.models.loading import load_codec, new_scalar_model, save_best_of_n, save_policy, save_scalar_model
from components.models.text import Codec, TextFormat
from components.place import Place
from components.processes import free_port
from flows.cli import commands

ROOT = Path(__file__).resolve().parents[3]
PROMPT = "hello"


@pytest.fixture(scope="module")
def sft(trained_world: Path) -> Path:
    return trained_world / Place().sft / "policy"


def store_chat_policy(family: str, text_format: TextFormat, folder: Path) -> Path:
    tokenizer = tokenizer_of(family)
    save_policy(random_causal_model("llama", len(tokenizer), 3), Codec(tokenizer, text_format), folder)
    return folder


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Path], tuple[subprocess.Popen[str], openai.OpenAI]]]:
    """Starts `proximal serve` with a folder of its own for temporary files; gives the process and a client."""
    running: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(folder: Path) -> tuple[subprocess.Popen[str], openai.OpenAI]:
        port = free_port()
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "serve", str(folder), "--port", str(port)],
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests' own may be to ignore it
            )
        running.append(process)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, timeout=120)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
            ):
                return process, client
            time.sleep(0.2)
        raise AssertionError((tmp_path / "log").read_text())

    yield start
    for process in running:
        process.kill()
        process.wait()


def refusal(client: openai.OpenAI, **asked: Any) -> Any:
    """What a status 400 says."""
    with pytest.raises(openai.BadRequestError) as fault:
        client.chat.completions.create(**asked)
    body = fault.value.response.json()
    assert set(body) == {"detail"}
    return body["detail"]


def test_openais_client_gets_the_policys_answers_whole_and_streamed(sft: Path, started: Any, tmp_path: Path) -> None:
    codec = load_codec(sft)
    save_policy(random_causal_model("llama", len(codec.tokenizer), 3), codec, tmp_path / "policy")
    expected = Answerer(tmp_path / "policy").answer([PROMPT], temperature=0, seed=1, max_response_tokens=6)
    process, client = started(tmp_path / "policy")
    asked: dict[str, Any] = {
        "model": "policy",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        "max_tokens": 6,
    }
    whole = client.chat.completions.create(**asked)
    assert [whole.choices[0].message.content.strip()] == expected and expected[0]
    parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert ["".join(parts).strip()] == expected
    drawn = {**asked, "temperature": 1.0, "seed": 5}
    once, again = (client.chat.completions.create(**drawn).choices[0].message.content for _ in range(2))
    assert once == again
    turns = [*asked["messages"], {"role": "assistant", "content": "Yes."}, *asked["messages"]]
    assert refusal(client, **{**asked, "messages": turns}) == (
        "messages: this policy has no chat template and takes one message, of the role user; "
        "asked: user, assistant, user"
    )
    assert refusal(client, **{**asked, "model": "other"}) == "Server is pinned to 'policy'; requested 'other'."
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").glob("proximal-serve-*")) == []


def test_a_conversation_is_read_with_the_policys_chat_template(started: Any, tmp_path: Path) -> None:
    folder = store_chat_policy("chatml", TextFormat(None, 100, 20, system_prompt='Be "brief".\n'), tmp_path / "polite")
    turns: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "well"},
    ]
    expected = Answerer(folder).answer([turns], temperature=0, seed=1, max_response_tokens=8)
    process, client = started(folder)
    answer = client.chat.completions.create(model="polite", messages=turns, temperature=0, max_tokens=8)
    assert [answer.choices[0].message.content.strip()] == expected and expected[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("family", MADE)
@pytest.mark.parametrize("system", [None, 'Be "brief", {{ user }}.\n'], ids=["no system prompt", "a system prompt"])
def test_the_template_gives_the_tokens_of_training(family: str, system: str | None, tmp_path: Path) -> None:
    if system and family == "gemma":
        return  # its template takes none
    text_format = TextFormat(None, 100, 20, system_prompt=system)
    folder = store_chat_policy(family, text_format, tmp_path / "policy")
    serve.write_served(folder, tmp_path / "served", 0.7)  # compares them
    kept = json.loads((tmp_path / "served" / "generation_config.json").read_text())
    assert (kept["do_sample"], kept["temperature"], kept["top_k"]) == (True, 0.7, 0)
    assert kept["eos_token_id"] == list(load_codec(folder).stop_ids)


def test_a_template_that_gives_other_tokens_is_refused(sft: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(serve, "template_of", lambda codec: "{{ messages[0]['content'] }}")
    with pytest.raises(ArtifactError, match="what it read in training"):
        serve.write_served(sft, tmp_path / "served", 0.7)


def test_a_policy_that_chooses_has_no_plain_form_to_serve(sft: Path, tmp_path: Path) -> None:
    save_scalar_model(new_scalar_model(sft, seed=1), tmp_path / "scorer")
    save_best_of_n(sft, tmp_path / "scorer", 2, tmp_path / "best")
    with pytest.raises(ArtifactError, match="no plain form"):
        serve.write_served(tmp_path / "best", tmp_path / "served", 0.7)


def test_a_taken_port_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="the port cannot be had"):
            serve.serve(str(tmp_path / "nothing"), other.getsockname()[1], 0.7)


def test_the_name_in_requests(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b").mkdir()
    named = {"policy@champion": "policy@champion", "models:/policy@candidate": "policy@candidate"}
    named |= {"models:/policy/3": "policy@3", "artifacts/sft/policy/": "policy", "a@b": "a-b"}
    assert {policy: serve.served_name(policy) for policy in named} == named


@pytest.mark.parametrize(
    "vllm, what",
    [
        (Vllm("no/such/program"), "vLLM is not installed there"),
        (Vllm(sys.executable, ("--host=0.0.0.0",)), "these options are set already"),
    ],
)
def test_a_vllm_that_cannot_serve_is_refused_before_anything_is_exported(vllm: Vllm, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        serve.serve(str(tmp_path / "nothing"), free_port(), 0.7, vllm)


def test_a_vllm_that_ends_by_itself_is_a_fault(sft: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(EnvironmentFault, match="it ended with status 1"):
            serve.serve(str(sft), free_port(), 0.7, Vllm("false"))
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--vllm-arguments", "--enforce-eager"), "add --vllm PROGRAM"),
        (("--vllm", "vllm", "--vllm-arguments", "'"), "No closing quotation"),
    ],
)
def test_arguments_that_nobody_takes_are_refused(options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(commands, ["serve", *options])
    assert done.exit_code == 2
    assert said in done.output
