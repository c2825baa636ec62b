"""A function of the user's, at work in a process of its own, so that one that hangs can be ended.

A thread could not be ended, and a regular expression that never returns would stop this process, too.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from components.processes import die_with_parent
from components.scoring.answers import plain

_SECONDS_TO_IMPORT = 300.0  # its module may load a model


class Fault(Exception):
    """The function gave nothing, and why, in words."""


class Worker:
    """Calls one function, `module:function`, again and again; whatever it keeps between calls, it keeps."""

    def __init__(self, function: str) -> None:
        """
        Raises:
            Fault: its module could not be imported there.
        """
        context = multiprocessing.get_context("spawn")  # forked, it could hang on a lock of torch's
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, function, os.getpid()), daemon=True)
        self._process.start()
        other.close()
        self._receive(_SECONDS_TO_IMPORT)

    def call(
        self, prompts: Sequence[str], responses: Sequence[str], columns: Mapping[str, Sequence[Any]], seconds: float
    ) -> Any:
        """What the function gives, as `plain` makes it.

        Raises:
            Fault: it raised, took longer than `seconds`, or ended its process.
        """
        self._connection.send((list(prompts), list(responses), dict(columns)))
        return self._receive(seconds)

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._connection.poll(seconds):
                self._process.kill()
                raise Fault(f"no answer within {seconds:g} seconds")
            fault, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise Fault(f"its process ended, with exit status {self._process.exitcode}") from None
        if fault is not None:
            raise Fault(fault)
        return answer


def _serve(connection: Connection, name: str, parent: int) -> None:
    die_with_parent(parent)
    module, _, function = name.partition(":")
    called: Any = None
    try:
        called = getattr(importlib.import_module(module), function)
        connection.send((None, None))
        while True:
            prompts, responses, columns = connection.recv()
            connection.send((None, plain(called(prompts, responses, **columns))))
    except EOFError:  # nobody asks any more
        return
    except Exception as fault:  # whatever it is, it is the function's, and ends the stage with one message
        connection.send((_in_words(fault), None))


def _in_words(fault: Exception) -> str:
    """The exception with the line that raised it."""
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__}: {fault} ({last.filename}, line {last.lineno}: {last.line})"
