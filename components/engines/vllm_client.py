"""Asking a vLLM server over HTTP. What needs an API key gets it from the environment variable PROXIMAL_VLLM_TOKEN."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from components.errors import ConfigError, EnvironmentFault

TOKEN_VARIABLE = "PROXIMAL_VLLM_TOKEN"
# Temperature alone: whatever else shapes the distribution is off, whatever the server's defaults are.
_POLICY_ITSELF = {
    **{"top_p": 1.0, "top_k": -1, "min_p": 0.0},
    **{"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    **{"ignore_eos": True, "add_special_tokens": False},  # the policy's own end tokens are in stop_token_ids
}


class Client:
    """One server.

    Args:
        key: of params, that names it in errors.
        log: of a server that was started here, on this machine: no proxy is asked then.
    """

    def __init__(
        self, url: str, *, key: str, timeout_seconds: float, requests_at_once: int, log: Path | None = None
    ) -> None:
        self.url, self._log, self._key, self._timeout, self._at_once = url, log, key, timeout_seconds, requests_at_once
        self._session = requests.Session()
        self._session.auth = _authorise
        self._session.trust_env = log is None
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=requests_at_once))

    def get(self, path: str) -> Any:
        """What the server answers to a question without content; see `post`."""
        return self._ask("GET", path, None)

    def post(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """What the server answers, as JSON; None for an empty answer, or one that is no JSON.

        Raises:
            EnvironmentFault: it does not answer, or by an error of its own.
            ConfigError: it refuses.
        """
        return self._ask("POST", path, content)

    def complete(self, requested: list[dict[str, Any]], at_once: int | None = None) -> list[dict[str, Any]]:
        """The one completion of each request, several asked at once, as params say or else as given; see `post`."""
        asked = [{**_POLICY_ITSELF, **request, "n": 1, "return_token_ids": True} for request in requested]
        with ThreadPoolExecutor(at_once or self._at_once) as pool:
            answers = [pool.submit(self.post, "/v1/completions", content) for content in asked]
            try:
                return [_choice(answer.result(), self) for answer in answers]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def refusal(self, what: str, *, expected: str, found: str, do: str) -> ConfigError:
        """An error that names this server."""
        return ConfigError(what, where=f"{self._key}: {self.url}", expected=expected, found=found, do=do)

    def _ask(self, method: str, path: str, content: Mapping[str, Any] | None) -> Any:
        try:
            answer = self._session.request(
                method, self.url + path, json=content, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as fault:
            raise self._fault(
                "vLLM does not answer",
                path,
                expected=f"an answer within {self._timeout:g} seconds",
                found=f"{type(fault).__name__}: {_shown(str(fault))}",
                see="that the server runs at this address",
            ) from fault
        if answer.status_code >= 500:
            raise self._fault(
                f"vLLM fails at {path}",
                path,
                expected="status 200",
                found=f"status {answer.status_code}: {_shown(answer.text)}",
                see="that it serves this run's model, and takes adapters of its rank (--max-lora-rank)",
            )
        if not answer.ok or answer.is_redirect:
            raise self.refusal(
                f"vLLM refuses {path}",
                expected="status 200",
                found=f"status {answer.status_code}: {_shown(answer.text)}",
                do="see that this is a vLLM server, and how it was started (infra/decisions/0021-vllm-as-a-server.md); "
                f"a key comes from ${TOKEN_VARIABLE}",
            )
        try:
            return answer.json()
        except ValueError:
            return None

    def _fault(self, what: str, path: str, *, expected: str, found: str, see: str) -> EnvironmentFault:
        log = "" if self._log is None else f" ({self._log})"
        return EnvironmentFault(
            what,
            where=f"{self._key}: {self.url}{path}",
            expected=expected,
            found=found,
            do=f"see {see}, and its log{log}; run again: what was finished before is kept",
        )


def _choice(answer: Any, client: Client) -> dict[str, Any]:
    try:
        (choice,) = answer["choices"]
        return dict(choice)
    except (TypeError, KeyError, ValueError) as fault:
        raise client.refusal(
            "what answers is no vLLM, or another version",
            expected="a completion with one choice",
            found=_shown(str(answer)),
            do="name the address of a vLLM server; this was written for version 0.32",
        ) from fault


def _shown(text: str) -> str:
    return " ".join(text.split())[:300]


def _authorise(request: Any) -> Any:
    if token := os.environ.get(TOKEN_VARIABLE):
        request.headers["Authorization"] = f"Bearer {token}"
    return request
