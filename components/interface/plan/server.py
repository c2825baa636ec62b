"""What a vLLM server takes of the device that it shares with the policy in training; see infra/decisions/0021.

One at an address of its own takes nothing here.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

import torch

from components.config import Params, VllmStarted
from components.interface.plan.device import GIB, Device
from components.interface.plan.roles import Phase

_SHARE = 0.92  # of a device's memory, where nothing is said: vLLM 0.32
_PROCESSES = round(1.4 * GIB)  # server, engine and worker on a CPU, beside weights and cache; measured
_CONTEXT = GIB // 2  # of CUDA, which stays while it sleeps; not measured
_ASLEEP = ("scoring", "updates")


class Server(NamedTuple):
    """Bytes of a server beside a cycle.

    Args:
        weights: of the model that it serves.
        cache: of keys and values; where vLLM is given a share of the memory, what that leaves.
        beside: libraries, and what the worker holds beside both.
        asleep: what stays of all while the policy is updated.
        written: what our first process holds while it writes whole weights for it.
    """

    weights: int
    cache: int
    beside: int
    asleep: int
    written: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.beside

    def of_phase(self, phase: Phase) -> int:
        """What is there of it in a phase."""
        if phase.stage != "alignment":
            return 0
        return self.asleep if phase.name in _ASLEEP else self.total + self.written


def server_of(params: Params, shape: Any, parameters: int, device: Device, processes: int) -> Server | None:
    """The server that params start on the device; None for none.

    Args:
        shape: the config of the policy's architecture.
        parameters: of it, tied ones once.
        processes: of ours on this machine; the first GPUs are theirs.
    """
    settings = params.generation
    if not isinstance(settings, VllmStarted) or (device.is_gpu and _is_on_other_gpus(settings, processes)):
        return None
    text = shape.get_text_config()
    is_whole = params.language_model.adapter is None
    apart = text.vocab_size * text.hidden_size if is_whole and text.tie_word_embeddings else 0  # the head, written so
    weights = (parameters + apart) * getattr(torch, settings.dtype).itemsize
    beside = _CONTEXT if device.is_gpu else _PROCESSES
    cache = _cache_of(settings, device)
    if cache is None:
        share = _option(settings, "--gpu-memory-utilization")
        cache = max(0, round((float(share) if share else _SHARE) * device.memory) - weights - beside)
    total = weights + cache + beside
    asleep = beside if settings.sleeps and device.is_gpu else total
    return Server(weights, cache, beside, asleep, 0 if device.is_gpu or not is_whole else weights)


def _cache_of(settings: VllmStarted, device: Device) -> int | None:
    """The size that params give the cache themselves."""
    space = settings.environment.get("VLLM_CPU_KVCACHE_SPACE")
    if space and not device.is_gpu:
        return int(space) * GIB
    given = _option(settings, "--kv-cache-memory-bytes")
    return int(given) if given and given.isdigit() else None


def _option(settings: VllmStarted, name: str) -> str | None:
    """The value of an option of `vllm serve`, as one word or two."""
    words = settings.arguments
    for word, after in zip_longest(words, words[1:]):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _is_on_other_gpus(settings: VllmStarted, processes: int) -> bool:
    named = settings.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return all(name.strip().isdigit() and int(name) >= processes for name in named)
