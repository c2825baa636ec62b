"""Talking to policies line by line: `proximal chat`. They answer as `predict` of a registered model does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from components.data.rows import Message
from components.engines.answering import Answerer
from components.interface.asking import Asking
from components.interface.policies import policy_folder

_UNFINISHED = "\ufffd"  # what a part of a character is decoded to
_LIVE = 8  # a second


class Streaming(Answerer):
    """An `Answerer` that tells an answer while it is sampled, one after the other whoever asks."""

    def __init__(self, folder: Path) -> None:
        """Raises: ArtifactError, see `Answerer`."""
        super().__init__(folder)
        self._one_at_a_time = threading.Lock()

    @property
    def reads_conversations(self) -> bool:
        """Whether a chat template is there: what came before is then part of the next question."""
        return self._codec.format.prompt_template is None

    def stream(self, prompt: str | list[Message], asking: Asking, tell: Callable[[str], None]) -> str:
        """The same answer as `answer` gives, and its parts as they come, which together are that answer.

        A policy that chooses the best of n responses tells the chosen one when it is known.

        Args:
            tell: hears every part, on the caller's thread; what it raises ends the answer.

        Raises:
            DataError: see `answer`.
        """
        heard: list[int] = []
        told = ""
        has_begun = False

        def hear(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
            nonlocal told, has_begun
            if has_begun:  # after the prompt every token is read before the next one is drawn
                heard.append(int(named["input_ids"][0, 0]))
                [text] = self._codec.decode([heard])
                if text.startswith(told) and not text.endswith(_UNFINISHED) and text != told:
                    tell(text[len(told) :])
                    told = text
            has_begun = True

        with self._one_at_a_time:
            listening = self._policy.register_forward_pre_hook(hear, with_kwargs=True)
            try:
                [answer] = self.answer([prompt], **asdict(asking))
            finally:
                listening.remove()
        if answer != told:
            # A tokenizer that writes earlier words anew once it knows later ones: the whole, below what was told.
            tell(answer[len(told) :] if answer.startswith(told) else f"\n{answer}")
        return answer


class Talker:
    """A policy with its own side of the conversation."""

    def __init__(self, name: str) -> None:
        """Raises: ArtifactError, there is no such policy, or it is damaged."""
        self.name = name
        with policy_folder(name) as folder:
            self._policy = Streaming(folder)
        self._turns: list[Message] = []

    @property
    def remembers(self) -> bool:
        """Whether it reads the conversation so far."""
        return self._policy.reads_conversations

    def answer(self, text: str, asking: Asking, tell: Callable[[str], None], *, alone: bool = False) -> str:
        """Answer a message.

        Args:
            alone: leave out what was said before, and forget this.
        """
        if alone or not self.remembers:
            return self._policy.stream(text, asking, tell)
        turns = [*self._turns, Message(role="user", content=text)]
        said = self._policy.stream(turns, asking, tell)
        self._turns = [*turns, Message(role="assistant", content=said)]
        return said


def chat(names: Sequence[str], asking: Asking) -> None:
    """Answer what is typed until Ctrl-C or Ctrl-D; or, where no terminal is, every line of standard input alone.

    Args:
        names: of one policy, or of those that answer side by side, as `policy_folder` takes them.

    Raises:
        ArtifactError, DataError: see `policy_folder` and `Answerer.answer`.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    talkers = [Talker(name) for name in names]
    click.echo(f"{' and '.join(names)}: {asking.sentence()}", err=True)
    if not sys.stdin.isatty():
        _answer_all(talkers, asking, sys.stdin, alone=True)
        return
    for talker in talkers:
        memory = "reads the whole conversation" if talker.remembers else "reads every message alone: no chat template"
        click.echo(f"{talker.name} {memory}", err=True)
    click.echo("Ctrl-D or Ctrl-C ends it", err=True)
    try:
        _answer_all(talkers, asking, _typed(), alone=False)
    except KeyboardInterrupt:
        click.echo()


def _typed() -> Iterator[str]:
    """Lines as they are typed, with the keys of a shell."""
    import readline  # noqa: F401  input() takes its editing and history from it

    while True:
        try:
            yield input("> ")
        except EOFError:
            click.echo()
            return


def _answer_all(talkers: list[Talker], asking: Asking, lines: Iterable[str], *, alone: bool) -> None:
    console = Console()
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if len(talkers) > 1 and console.is_terminal:
            _side_by_side(talkers, asking, text, console, alone)
            continue
        for talker in talkers:
            if len(talkers) > 1:
                click.echo(f"{talker.name}: ", nl=False)
            talker.answer(text, asking, _show, alone=alone)
            click.echo()


def _side_by_side(talkers: list[Talker], asking: Asking, text: str, console: Console, alone: bool) -> None:
    said = [""] * len(talkers)

    def table() -> Table:
        shown = Table(expand=True)
        for talker in talkers:
            shown.add_column(Text(talker.name), ratio=1)
        shown.add_row(*map(Text, said))
        return shown

    with Live(console=console, refresh_per_second=_LIVE) as live:
        for number, talker in enumerate(talkers):

            def tell(part: str, number: int = number) -> None:
                said[number] += _harmless(part)
                live.update(table())

            talker.answer(text, asking, tell, alone=alone)
        live.update(table(), refresh=True)


def _show(part: str) -> None:
    click.echo(_harmless(part) if sys.stdout.isatty() else part, nl=False)
    sys.stdout.flush()


def _harmless(text: str) -> str:
    """Without what moves a terminal's cursor or changes its settings: a policy may say anything."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else _UNFINISHED for letter in text)
