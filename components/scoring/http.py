"""A scorer at an address: prompts, responses and columns go there as JSON, and {"scores": [...]} comes back.

What needs an authorization gets it from the environment variable PROXIMAL_REWARD_TOKEN, as a bearer token.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from components.config.scoring import Http
from components.errors import ConfigError
from components.scoring.answers import Source, batches, places, plain, require_numbers, shown
from components.scoring.columns import Row, columns_of_rows

TOKEN_VARIABLE = "PROXIMAL_REWARD_TOKEN"
_BACKOFF_SECONDS = 0.25  # before the second retry; twice as long before each further one


class HttpPart:
    """An endpoint as a part of a scorer."""

    def __init__(self, part: Http, key: str) -> None:
        self.source = Source(key, part.url)
        self._part = part

    @cached_property
    def _session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        session = requests.Session()
        session.auth = _authorise  # also where there is no token: nothing else is to be found in files
        retry = Retry(
            total=self._part.retries,
            backoff_factor=_BACKOFF_SECONDS,
            status_forcelist=range(500, 600),
            allowed_methods={"POST"},
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        return session

    def require(self, there: Sequence[str], data: str) -> None:
        """It takes whatever there is."""

    def __call__(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """A number or None for every response.

        Raises:
            ConfigError: the endpoint cannot be reached, refuses, or answers anything else.
        """
        answers: list[float | None] = []
        for batch in batches(list(zip(rows, responses, strict=True)), self._part.batch_size):
            own = [row for row, _ in batch]
            sent = {"prompts": [row.prompt for row in own], "responses": [response for _, response in batch]}
            answers += require_numbers(self._ask({**sent, **columns_of_rows(own)}, own), own, self.source)
        return answers

    def _ask(self, content: dict[str, Any], rows: list[Row]) -> Any:
        import requests

        part = self._part
        try:
            answer = self._session.post(part.url, json=content, timeout=part.timeout_seconds, allow_redirects=False)
        except requests.RequestException as fault:
            tries = f", in {part.retries + 1} tries of {part.timeout_seconds:g} seconds each"
            raise self._refusal(rows, f"{type(fault).__name__}: {shown(str(fault))}{tries}") from fault
        if answer.status_code != requests.codes.ok:
            raise self._refusal(rows, f"status {answer.status_code}: {shown(answer.text)}")
        try:
            scores = answer.json()["scores"]
        except (ValueError, TypeError, KeyError):
            raise self._refusal(rows, f"a body that is no such JSON: {shown(answer.text)}") from None
        return plain(scores)

    def _refusal(self, rows: list[Row], found: str) -> ConfigError:
        return ConfigError(
            "a reward endpoint did not answer as it should",
            where=f"{self.source.where}, {places(rows)} of {len(rows)}",
            expected=f'status 200 and {{"scores": [{len(rows)} numbers or null]}}',
            found=found,
            do=f"see to the endpoint (a token comes from ${TOKEN_VARIABLE}), and run again: what was finished before "
            "is kept",
        )


def _authorise(request: Any) -> Any:
    if token := os.environ.get(TOKEN_VARIABLE):
        request.headers["Authorization"] = f"Bearer {token}"
    return request
