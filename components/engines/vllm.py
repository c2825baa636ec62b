"""A vLLM server as an engine of rollouts: it gets the policy's weights by file, is checked, and asked over HTTP.

The first process speaks with it, for all. One request a rollout, with a seed of its own from the rollout's named random
numbers, so that an iteration asks the same again whenever it is run.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from components.config import Shared, VllmAtUrl, VllmStarted
from components.engines.base import Sampled
from components.engines.vllm_client import Client
from components.engines.vllm_probe import Known, probe_of, require_own_weights
from components.engines.vllm_require import is_asleep, require_server, served_model
from components.engines.vllm_responses import prompt_logprobs, responses_of
from components.engines.vllm_server import MODEL, Server
from components.engines.vllm_weights import base_of, write_weights
from components.errors import ProximalError
from components.models.adapter_views import AdapterPolicy
from components.models.text import Codec
from components.passes.forward import response_logprobs
from components.passes.sequences import Sequences, build_sequences, pad_left, pad_right
from components.self_checks import Check, Checks

logger = logging.getLogger("proximal")


class VllmEngine:
    """One vLLM server.

    Args:
        whole: gives the policy in training, whole; its present weights are what `sync` brings.
        prompts: of the cycle, some of which are the probe.
        folder: for weights and the server's log.
        checks: told of what each sync found.
    """

    def __init__(
        self,
        settings: VllmStarted | VllmAtUrl,
        accelerator: Accelerator,
        whole: Callable[[], AbstractContextManager[Any]],
        codec: Codec,
        shared: Shared,
        prompts: list[list[int]],
        *,
        temperature: float,
        folder: Path,
        checks: Checks,
    ) -> None:
        self._settings, self._accelerator, self._whole, self._codec = settings, accelerator, whole, codec
        self._model = shared.language_model
        self._temperature, self._folder, self._checks = temperature, folder.absolute(), checks
        self._probe = probe_of(prompts)
        self._known: Known | None = None
        self._server: Server | None = None
        self._client: Client | None = None
        self._name, self._written, self._asleep = MODEL, 0, False
        self._adapter = ""  # the name of the one that is loaded

    def sync(self, step: int) -> dict[str, float]:
        """Bring the policy's weights to the server, which the first call starts, and see that it has them.

        Returns:
            engine_gap: between its logprobs and ours of the probe's tokens. Units: nats a token.
        Raises:
            ProximalError: it does not start, answer or take them, or has others afterwards.
        """
        gap = 0.0
        with self._whole() as policy:
            own = self._own_logprobs(policy)
            if self._accelerator.is_main_process:
                client = self._bring(policy, step)
                engine = prompt_logprobs(client, self._name, self._probe)
                where = f"generation, after {self._written} updates of {client.url}"
                bound = self._settings.max_probe_gap_nats_per_token
                self._known = require_own_weights(self._checks, engine, own, self._known, bound, where, step)
                gap = float((engine - own).abs().mean())
        return {"engine_gap": gap}

    def sample(self, prompts: list[list[int]], uniforms: Tensor, share: slice) -> Sampled:
        """See `Engine`."""
        answers: list[Any] = [None]
        if self._accelerator.is_main_process:
            assert self._client is not None
            self._wake(self._client)  # an iteration may sample in several rounds
            found = responses_of(
                *(self._client, self._name, prompts, uniforms),
                temperature=self._temperature,
                stop_ids=self._codec.stop_ids,
            )
            answers = [found]
            if self._settings.sleeps:
                self._sleep(self._client)
        if self._accelerator.num_processes > 1:
            answers = broadcast_object_list(answers)
        chosen = answers[0][share]
        logprobs = torch.zeros(len(chosen), max(1, *(len(tokens) for tokens, _ in chosen)))
        for row, (_, of_tokens) in enumerate(chosen):
            logprobs[row, : len(of_tokens)] = torch.tensor(of_tokens)
        responses = [tokens for tokens, _ in chosen]
        sequences = Sequences(*pad_left(prompts[share], self._codec.pad_id), *pad_right(responses, self._codec.pad_id))
        return Sampled(sequences, logprobs)

    def close(self) -> None:
        """End a server that was started; leave one that was there awake and without an adapter; remove the weights."""
        try:
            if self._server is not None:
                self._server.end()
            elif self._client is not None:
                self._leave(self._client)
        except ProximalError as fault:  # what ended the cycle is what people have to know
            logger.warning("the vLLM server stays as it is: %s", fault)
        self._server = self._client = None
        for written in self._folder.glob("weights-*"):
            shutil.rmtree(written, ignore_errors=True)

    def _bring(self, policy: Any, step: int) -> Client:
        """Write the weights and have the server load them; what it had before is removed."""
        before = self._folder / f"weights-{self._written}"
        self._written += 1
        now = self._folder / f"weights-{self._written}"
        shutil.rmtree(now, ignore_errors=True)
        dtype = getattr(torch, self._settings.dtype) if isinstance(self._settings, VllmStarted) else None
        digest = write_weights(policy, self._codec, now, dtype)
        is_new = self._client is None
        client = self._client = self._client or self._connect(policy, now)
        self._wake(client)
        if isinstance(policy, AdapterPolicy):
            self._load_adapter(client, now, f"{MODEL}-{digest}-{self._written}", step)
        elif self._server is None or not is_new:  # a server is started with the first ones
            client.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(now)}})
            answer = client.post("/reset_prefix_cache")
            if not isinstance(answer, dict) or not answer.get("success", False):
                raise client.refusal(
                    "vLLM keeps what it computed with the weights of before",
                    expected='{"success": true} from /reset_prefix_cache',
                    found=str(answer),
                    do="nobody else may ask this server while a run uses it",
                )
        shutil.rmtree(before, ignore_errors=True)
        return client

    def _connect(self, policy: Any, written: Path) -> Client:
        settings = self._settings
        limit = self._model.max_prompt_tokens + self._model.max_response_tokens
        is_adapter = isinstance(policy, AdapterPolicy)
        if isinstance(settings, VllmStarted):
            self._server = Server.start(
                *(settings, base_of(policy, written) if is_adapter else written, self._folder / "server.log"),
                max_model_len=limit,
                lora_rank=policy.shape.rank if is_adapter else None,
            )
        client = client_of(settings, self._server)
        require_server(client, takes_adapters=is_adapter, tokens=limit, sleeps=settings.sleeps)
        self._asleep = settings.sleeps and is_asleep(client)  # as a cycle that was killed left it
        self._name = served_model(client).name
        for left in _adapters_of(client):  # by a cycle that was killed; a name can be loaded once
            client.post("/v1/unload_lora_adapter", {"lora_name": left})
        return client

    def _sleep(self, client: Client) -> None:
        client.post("/sleep?level=1")
        if not is_asleep(client):
            raise client.refusal(
                "vLLM does not sleep",
                expected='{"is_sleeping": true} from /is_sleeping, after /sleep',
                found="false",
                do="start it with --enable-sleep-mode, which a CPU does not have, or set generation.sleeps: false",
            )
        self._asleep = True

    def _wake(self, client: Client) -> None:
        if self._asleep:
            client.post("/wake_up")
            self._asleep = False

    def _leave(self, client: Client) -> None:
        self._wake(client)
        if self._adapter:
            client.post("/v1/unload_lora_adapter", {"lora_name": self._adapter})

    def _load_adapter(self, client: Client, folder: Path, name: str, step: int) -> None:
        """Its name has the digest of its weights: what the server lists is what it loaded."""
        client.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        served = _adapters_of(client)
        self._checks.hold(
            Check(
                "engine_adapter", "adapters, by the digest of their weights, that /v1/models does not list", 0, "of 1"
            ),
            int(name not in served),
            where=f"generation, after {self._written} updates of {client.url}",
            fault="vLLM has not taken the adapter",
            do="see the server's log; what was finished before is kept",
            step=step,
            detail=f"{name} is not among those there: {', '.join(served) or 'none'}",
        )
        if self._adapter:
            client.post("/v1/unload_lora_adapter", {"lora_name": self._adapter})
        self._name = self._adapter = name

    @torch.no_grad()
    def _own_logprobs(self, policy: Any) -> Tensor:
        """Of the probe's tokens after the first of each prompt, at temperature 1. Shapes: (N,)."""
        parts = build_sequences(
            [prompt[:1] for prompt in self._probe], [prompt[1:] for prompt in self._probe], self._codec.pad_id
        ).to(next(policy.parameters()).device)
        with self._accelerator.autocast():
            logprobs = response_logprobs(policy, parts, temperature=1.0)
        return logprobs[parts.response_mask].float().cpu()


def client_of(settings: VllmStarted | VllmAtUrl, started: Server | None = None) -> Client:
    """Who speaks with the server that params name, or with the one that was started."""
    url = settings.url if isinstance(settings, VllmAtUrl) else started.url if started is not None else ""
    return Client(
        url,
        key="generation.url" if isinstance(settings, VllmAtUrl) else "generation.engine",
        timeout_seconds=settings.timeout_seconds,
        requests_at_once=settings.requests_at_once,
        log=None if started is None else started.log,
    )


def _adapters_of(client: Client) -> list[str]:
    """The adapters of ours that a server lists."""
    listed = client.get("/v1/models")
    served = listed.get("data", []) if isinstance(listed, dict) else []
    names = [str(each.get("id")) for each in served if each.get("parent") is not None]
    return [name for name in names if name.startswith(f"{MODEL}-")]
