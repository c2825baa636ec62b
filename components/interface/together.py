"""Several policies that answer one question at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from components.data.rows import Message
from components.interface.asking import Asking
from components.interface.chat import Streaming


class _NobodyReads(BaseException):
    """Ends an answer amid its tokens."""


def answer_together(
    policies: Sequence[Streaming],
    asked: Sequence[str | list[Message]],
    asking: Asking,
    tell: Callable[[int, str], None],
) -> list[str]:
    """Let each policy answer its question, all at once.

    Args:
        asked: what each one reads.
        tell: hears which policy says what next, on the caller's thread; if it raises, the others end, too.

    Returns:
        The answers, in the policies' order.
    Raises:
        DataError: see `Answerer.answer`.
    """
    parts: SimpleQueue[tuple[int, str | None]] = SimpleQueue()
    is_over = threading.Event()

    def answer(number: int) -> str:
        def say(part: str) -> None:
            if is_over.is_set():
                raise _NobodyReads
            parts.put((number, part))

        return policies[number].stream(asked[number], asking, say)

    with ThreadPoolExecutor(len(policies)) as pool:
        answers = [pool.submit(answer, number) for number in range(len(policies))]
        for number, future in enumerate(answers):

            def end(_: Future[str], number: int = number) -> None:
                parts.put((number, None))

            future.add_done_callback(end)
        try:
            answering = len(answers)
            while answering:
                number, part = parts.get()
                if part is None:
                    answers[number].result()  # raises where it has no answer
                    answering -= 1
                else:
                    tell(number, part)
        finally:
            is_over.set()
        return [future.result() for future in answers]
