"""An endpoint as a part of a scorer, against a server of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from components.config.scoring import Http
from components.data.rows import Prompt
from components.errors import ConfigError
from components.processes import free_port
from components.scoring.http import TOKEN_VARIABLE, HttpPart

ROWS = [Prompt(str(number), f"prompt {number}", extra={"answer": number}) for number in range(3)]
Reply = tuple[int, str]


class Server:
    """Gives its replies in turn, the last one for ever, and keeps what it was sent."""

    def __init__(self, *replies: Reply) -> None:
        self.asked: list[tuple[dict[str, str], Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((dict(self.headers), content))
                status, body = replies[min(len(server.asked), len(replies)) - 1]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/score"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started = []

    def start(*replies: Reply) -> Server:
        started.append(Server(*replies))
        return started[-1]

    yield start
    for each in started:
        each.server.shutdown()
        each.server.server_close()


def part(url: str, retries: int = 2, batch_size: int = 8, seconds: float = 5.0) -> HttpPart:
    settings = Http(
        source="http", weight=1.0, url=url, retries=retries, batch_size=batch_size, timeout_seconds=seconds
    )  # fmt: skip
    return HttpPart(settings, "reward_model.parts.mine")


GOOD = (200, '{"scores": [1, null, 0.5]}')


def test_rows_go_there_and_numbers_come_back(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    server = serve(GOOD)
    assert part(server.url)(ROWS, ["a", "b", "c"]) == [1.0, None, 0.5]
    headers, content = server.asked[0]
    assert "Authorization" not in headers
    assert content == {
        "prompts": ["prompt 0", "prompt 1", "prompt 2"],
        "responses": ["a", "b", "c"],
        "id": ["0", "1", "2"],
        "messages": [None, None, None],
        "answer": [0, 1, 2],
    }


def test_batches_and_a_token(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    server = serve((200, '{"scores": [1, 2]}'), (200, '{"scores": [3]}'))
    assert part(server.url, batch_size=2)(ROWS, ["a", "b", "c"]) == [1.0, 2.0, 3.0]
    assert [content["answer"] for _, content in server.asked] == [[0, 1], [2]]
    assert {headers["Authorization"] for headers, _ in server.asked} == {"Bearer secret"}


def test_what_may_pass_is_tried_again(serve: Any) -> None:
    server = serve((503, "busy"), (500, "oops"), GOOD)
    assert part(server.url)(ROWS, ["a", "b", "c"]) == [1.0, None, 0.5]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "tries", "found"),
    [
        ((503, "busy"), 3, "status 503: busy"),
        ((404, "no such page"), 1, "status 404: no such page"),
        ((302, ""), 1, "status 302"),
        ((200, "<html>"), 1, "<html>"),
        ((200, '{"rewards": [1]}'), 1, '{"rewards": [1]}'),
    ],
)
def test_an_endpoint_that_does_not_answer_is_named(serve: Any, reply: Reply, tries: int, found: str) -> None:
    server = serve(reply)
    with pytest.raises(ConfigError, match="a reward endpoint did not answer") as caught:
        part(server.url)(ROWS, ["a", "b", "c"])
    assert found in caught.value.found and len(server.asked) == tries
    assert caught.value.where == f"reward_model.parts.mine: {server.url}, first row 0 of 3"


@pytest.mark.parametrize(
    ("body", "what"),
    [('{"scores": [1]}', "wrong number of values"), ('{"scores": [1, "2", 3]}', "no finite number"),
     ('{"scores": [1, NaN, 3]}', "no finite number"), ('{"scores": 1}', "no list of numbers")],
)  # fmt: skip
def test_what_are_no_numbers_is_refused(serve: Any, body: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        part(serve((200, body)).url)(ROWS, ["a", "b", "c"])


def test_nobody_there() -> None:
    with pytest.raises(ConfigError, match="did not answer") as caught:
        part(f"http://127.0.0.1:{free_port()}", retries=1)(ROWS, ["a", "b", "c"])
    assert "ConnectionError" in caught.value.found and "2 tries of 5 seconds" in caught.value.found
