"""`proximal chat`: what streams is the answer, and the answer is the registered model's."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from architectures import random_causal_model
from chats import tokenizer_of

from components.config import load_params
from components.engines.answering import Answerer
from components.errors import ArtifactError
from components.interface.asking import Asking
from components.interface.chat import Streaming, Talker, _show, chat
from components.models.loading import new_scalar_model, save_best_of_n, save_policy, save_scalar_model
from components.models.text import Codec, TextFormat
from components.place import Place
from components.tracking import stage_run
from components.tracking.registration import register
from components.tracking.registry import set_alias

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = ["How do I fix this?", "hello"]
ANSWERING: dict[str, Any] = {"temperature": 0.7, "max_response_tokens": 6, "seed": 3}
COMMAND = (sys.executable, "-m", "flows.cli", "chat")
SAME = ("--temperature", "0.7", "--max-tokens", "6", "--seed", "3")


@pytest.fixture(scope="module")
def sft(trained_world: Path) -> Path:
    return trained_world / Place().sft / "policy"


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def chatting(tmp_path: Path) -> Path:
    """A policy with a chat template."""
    tokenizer = tokenizer_of("phi")
    policy = random_causal_model("llama", len(tokenizer), seed=3)
    save_policy(policy, Codec(tokenizer, TextFormat(None, 100, 20)), tmp_path / "chatting")
    return tmp_path / "chatting"


def streamed(policy: Streaming, prompt: Any, asking: Asking) -> tuple[str, list[str]]:
    parts: list[str] = []
    return policy.stream(prompt, asking, parts.append), parts


def test_the_parts_are_the_answer_however_its_characters_are_split(sft: Path) -> None:
    policy, counts = Streaming(sft), []
    for seed in range(12):  # hot enough for bytes that are no characters
        asking = Asking(temperature=4.0, seed=seed, max_response_tokens=6)
        answer, parts = streamed(policy, PROMPTS[0], asking)
        assert "".join(parts) == answer
        assert [answer] == Answerer(sft).answer(PROMPTS[:1], temperature=4.0, seed=seed, max_response_tokens=6)
        counts.append(len(parts))
    assert max(counts) >= 3  # they did come one by one


def test_nobody_listens_once_an_answer_is_given(sft: Path) -> None:
    policy = Streaming(sft)
    asking = Asking(temperature=0, seed=1, max_response_tokens=6)
    first, parts = streamed(policy, "hello", asking)
    before = len(parts)
    assert policy.answer(["hello"], temperature=0, seed=1, max_response_tokens=6) == [first]
    assert len(parts) == before


def test_the_best_of_n_is_told_whole(sft: Path, tmp_path: Path) -> None:
    save_scalar_model(new_scalar_model(sft, seed=1), tmp_path / "scorer")
    save_best_of_n(sft, tmp_path / "scorer", 3, tmp_path / "best")
    answer, parts = streamed(Streaming(tmp_path / "best"), "hello", Asking(**ANSWERING))
    assert parts == [answer] == Answerer(tmp_path / "best").answer(["hello"], **ANSWERING)


def test_a_chat_template_reads_the_whole_conversation(chatting: Path) -> None:
    talker, asking = Talker(str(chatting)), Asking(temperature=0, seed=1, max_response_tokens=8)
    first = talker.answer("hello", asking, print)
    second = talker.answer("well", asking, print)
    turns: list[Any] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": first}]
    whole = [*turns, {"role": "user", "content": "well"}]
    expected = Answerer(chatting).answer([turns[:1], whole, "well"], temperature=0, seed=1, max_response_tokens=8)
    assert [first, second] == expected[:2]
    assert second != expected[2] == talker.answer("well", asking, print, alone=True)


def test_piped_prompts_are_answered_as_the_registered_model_predicts(
    world: Path, sft: Path, environment: dict[str, str]
) -> None:
    import mlflow.pyfunc

    params = load_params(Place().params)
    with stage_run("promotion", params) as run:
        set_alias(register(run.run_id, "talking", Place().sft / "policy", {}, ANSWERING), "champion")
    model = mlflow.pyfunc.load_model("models:/talking@champion")
    expected = [answer for prompt in PROMPTS for answer in model.predict([prompt])]
    asked = "\n".join([PROMPTS[0], "", PROMPTS[1]])
    command = [*COMMAND, "talking@champion", "--compare", str(sft), *SAME]
    done = subprocess.run(command, input=asked, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "temperature 0.7, seed 3, at most 6 tokens" in done.stderr
    assert done.stdout == "".join(f"talking@champion: {text}\n{sft}: {text}\n" for text in expected)
    assert len(set(expected)) == 2


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="this is no policy"):
        chat([str(tmp_path)], Asking(**ANSWERING))


def test_what_would_steer_a_terminal_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _show("a\x1b[2Jb\rc\té\n")
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffdc\té\n"


@pytest.fixture
def terminal(environment: dict[str, str], sft: Path) -> Iterator[Any]:
    """Starts `proximal chat` at a terminal; gives the process and the terminal."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(*more: str) -> tuple[subprocess.Popen[bytes], int]:
        ours, its = pty.openpty()

        def take() -> None:
            os.setsid()
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background

        process = subprocess.Popen(
            [*COMMAND, str(sft), *SAME, *more],
            stdin=its,
            stdout=its,
            stderr=its,
            env={**environment, "TERM": "xterm", "COLUMNS": "400"},
            cwd=ROOT,
            preexec_fn=take,
        )
        os.close(its)
        started.append((process, ours))
        return started[-1]

    yield start
    for process, ours in started:
        process.kill()
        process.wait()
        os.close(ours)


def seen(terminal: int, text: str) -> str:
    """What the terminal shows up to a text."""
    shown, deadline = "", time.monotonic() + 120
    while text not in shown and time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # nobody writes to it any more
            break
    assert text in shown, shown
    return shown


def test_at_a_terminal_it_answers_until_ctrl_c_ends_it(terminal: Any, sft: Path) -> None:
    [expected] = Answerer(sft).answer(["hello"], **ANSWERING)
    process, keyboard = terminal()
    assert "reads every message alone" in seen(keyboard, "> ")
    os.write(keyboard, b"hello\n")
    assert expected in seen(keyboard, "> ")
    for _ in range(6):  # input() does not hear of one between its prompt and its wait for keys: people press again
        os.write(keyboard, b"\x03")
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(timeout=10) == 0
            break
    assert process.poll() == 0


def test_at_a_terminal_two_answers_stand_side_by_side_until_ctrl_d_ends_it(terminal: Any, sft: Path) -> None:
    [expected] = Answerer(sft).answer(["hello"], **ANSWERING)
    process, keyboard = terminal("--compare", str(sft))
    seen(keyboard, "> ")
    os.write(keyboard, b"hello\n")
    shown = seen(keyboard, "> ")
    assert any(line.count(expected) == 2 for line in shown.splitlines()), shown
    os.write(keyboard, b"\x04")
    assert process.wait(timeout=60) == 0
