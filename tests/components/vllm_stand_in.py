"""A server that speaks the part of vLLM's protocol that a run uses, by transformers and peft alone, with faults.

The real one is asked in tests/components/vllm, where it is installed; this one shows in seconds what its faults do.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from components.place import Place

DEFAULT_PATHS = (
    *("/v1/completions", "/collective_rpc", "/reset_prefix_cache", "/sleep", "/wake_up", "/is_sleeping"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
)


class StandIn:
    """What it serves, and by which faults.

    Args:
        faults: any of reload_forgotten, adapter_refused, adapter_forgotten, cache_kept, ends_elsewhere, sharpened,
            sleepless. What is forgotten is so after as many reloads as `remembers`.
    """

    def __init__(
        self,
        model: Path,
        *faults: str,
        max_model_len: int = 512,
        paths: tuple[str, ...] = DEFAULT_PATHS,
        remembers: int = 0,
    ):
        self.model, self.faults, self.max_model_len, self.paths = model, set(faults), max_model_len, paths
        self.remembers = remembers
        self.loaded: Any = self.load(model)
        self.adapters: dict[str, Any] = {}
        self.asked: list[tuple[str, Any, str | None]] = []
        self.asleep = False
        self.lock = threading.Lock()
        self.url = ""

    @staticmethod
    def load(folder: Path) -> Any:
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM  # untyped in transformers
        return auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()

    def answer(self, path: str, content: Any) -> tuple[int, Any]:
        """Status and JSON."""
        if path == "/version":
            return 200, {"version": "0.32.0"}
        if path == "/openapi.json":
            return 200, {"paths": dict.fromkeys(self.paths, {})}
        if path == "/v1/models":
            base = {"id": "policy", "root": str(self.model), "parent": None, "max_model_len": self.max_model_len}
            return 200, {"data": [base, *({"id": name, "root": name, "parent": "policy"} for name in self.adapters)]}
        if path == "/collective_rpc":
            assert not self.asleep
            if "reload_forgotten" not in self.faults or self.remembers > 0:
                self.remembers -= 1
                self.loaded = self.load(Path(content["kwargs"]["weights_path"]))
            return 200, {"results": [None]}
        if path == "/reset_prefix_cache":
            return 200, {"success": "cache_kept" not in self.faults}
        if path == "/v1/load_lora_adapter":
            if "adapter_refused" in self.faults:
                said = "Worker failed with error 'LoRA rank 16 is greater than max_lora_rank 8.'"
                return 500, {"error": {"message": f"Call to add_lora method failed: {said}"}}
            if content["lora_name"] in self.adapters:
                return 400, {"error": {"message": "has already been loaded"}}
            assert not self.asleep
            if "adapter_forgotten" not in self.faults:
                from peft import PeftModel

                adapted = PeftModel.from_pretrained(self.load(self.model), content["lora_path"]).eval()
                self.adapters[content["lora_name"]] = adapted
            return 200, None
        if path == "/v1/unload_lora_adapter":
            del self.adapters[content["lora_name"]]
            return 200, None
        if path.startswith("/sleep") or path == "/wake_up":
            self.asleep = path != "/wake_up" and "sleepless" not in self.faults
            return 200, {"status": "ok"}
        if path == "/is_sleeping":
            return 200, {"is_sleeping": self.asleep}
        if path == "/v1/completions":
            assert not self.asleep
            return 200, {"choices": [self.complete(content)]}
        return 404, {"detail": "Not Found"}

    @torch.no_grad()
    def complete(self, content: Any) -> dict[str, Any]:
        """What vLLM does with a request: sampled one token after the other, by a generator of the request's seed."""
        model = self.adapters.get(content["model"], self.loaded)
        prompt, temperature = list(content["prompt"]), content["temperature"]
        given = None
        if content.get("prompt_logprobs") is not None:
            logprobs = model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
            given = [None, *({str(t): {"logprob": float(logprobs[i, t])}} for i, t in enumerate(prompt[1:]))]
        drawn = torch.Generator().manual_seed(content.get("seed", 0))
        tokens: list[int] = []
        found: list[float] = []
        stops = {*content.get("stop_token_ids", []), *({3} if "ends_elsewhere" in self.faults else {})}
        while len(tokens) < content["max_tokens"] and not stops & set(tokens[-1:]):
            logits = model(torch.tensor([prompt + tokens])).logits[0, -1].double() / temperature
            if "sharpened" in self.faults:
                logits = logits * 3.0
            probabilities = logits.softmax(-1)
            tokens.append(int(torch.multinomial(probabilities, 1, generator=drawn)))
            found.append(float(probabilities[tokens[-1]].log()))
        return {"token_ids": tokens, "logprobs": {"token_logprobs": found}, "prompt_logprobs": given}


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """It answers on a port of this machine until the block ends; `url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(json.loads(body) if body else None)

        def _answer(self, content: Any) -> None:
            with stand_in.lock:
                stand_in.asked.append((self.path, content, self.headers["Authorization"]))
                status, answer = stand_in.answer(self.path, content)
            sent = json.dumps(answer).encode() if answer is not None else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Served = Callable[..., tuple[StandIn, dict[str, Any]]]


@pytest.fixture
def served() -> Iterator[Served]:
    """served(*faults, **settings) serves the SFT policy of the world, or its base; with the section `generation`."""
    with ExitStack() as stack:

        def serve(*faults: str, remembers: int = 0, **changes: Any) -> tuple[StandIn, dict[str, Any]]:
            sft = Place().sft / "policy"
            model = sft if (sft / "model.safetensors").exists() else Path("models/tiny")
            server = stack.enter_context(serving(StandIn(model.absolute(), *faults, remembers=remembers)))
            settings = {
                **{"engine": "vllm_at_url", "url": server.url, "sleeps": False},
                **{"requests_at_once": 4, "timeout_seconds": 20.0, "importance_weight_cap": 2.0},
                **{"max_probe_gap_nats_per_token": 1e-3, "max_mismatch_kl_nats_per_token": 1e-3},
            }
            return server, settings | changes

        yield serve
