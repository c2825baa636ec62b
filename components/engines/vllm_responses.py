"""Responses and logprobs of prompts, as a vLLM server gives them, if they are what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from components.engines.vllm_client import Client
from components.errors import ConfigError


def responses_of(
    client: Client,
    model: str,
    prompts: list[list[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    stop_ids: Sequence[int],
) -> list[tuple[list[int], list[float]]]:
    """One response to every prompt: its tokens, through the first end token, and their logprobs at the temperature.

    Args:
        uniforms: (B, T); the first of a row is its seed, T the longest response.
    Raises:
        ConfigError: the server refuses, or gives something else.
        EnvironmentFault: it does not answer.
    """
    longest = uniforms.shape[1]
    asked = [
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": longest,
            "temperature": temperature,
            "stop_token_ids": list(stop_ids),
            "logprobs": 0,
            "seed": seed_of(row),
        }
        for prompt, row in zip(prompts, uniforms, strict=True)
    ]
    return [_response(choice, longest, set(stop_ids), client) for choice in client.complete(asked)]


def prompt_logprobs(client: Client, model: str, prompts: list[list[int]]) -> Tensor:
    """Logprobs of all tokens of prompts after each one's first, at temperature 1. Shapes: (N,). Units: nats.

    One prompt is asked at a time: several break a server of vLLM 0.32 that takes adapters on a CPU.

    Raises:
        ConfigError: the server refuses, or gives something else.
        EnvironmentFault: it does not answer.
    """
    asked = [
        {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
        for prompt in prompts
    ]
    found: list[float] = []
    for prompt, choice in zip(prompts, client.complete(asked, at_once=1), strict=True):
        try:
            given = choice["prompt_logprobs"][1:]
            found += [float(of[str(token)]["logprob"]) for of, token in zip(given, prompt[1:], strict=True)]
        except (TypeError, KeyError, ValueError) as fault:
            raise _other_form(client, "prompt_logprobs, one for each token of a prompt", choice, fault) from fault
    return torch.tensor(found)


def seed_of(uniforms: Tensor) -> int:
    """A rollout's seed: 53 bits of its first named random number."""
    return int(float(uniforms[0]) * 2**53)


def _response(choice: dict[str, Any], longest: int, stops: set[int], client: Client) -> tuple[list[int], list[float]]:
    """What was sampled, if it is what was asked for."""
    try:
        tokens = [int(token) for token in choice["token_ids"]]
        logprobs = [float(logprob) for logprob in choice["logprobs"]["token_logprobs"]]
    except (TypeError, KeyError, ValueError) as fault:
        raise _other_form(client, "token_ids, and token_logprobs for each of them", choice, fault) from fault
    is_whole = bool(tokens) and (tokens[-1] in stops or len(tokens) == longest) and not stops & set(tokens[:-1])
    if not is_whole or len(logprobs) != len(tokens) or not all(map(math.isfinite, logprobs)):
        raise client.refusal(
            "a response is not what was asked for",
            expected=f"up to the first of the end tokens {sorted(stops)}, or {longest} tokens, each with a logprob",
            found=f"{len(tokens)} tokens, the last {tokens[-1:]}, {len(logprobs)} logprobs",
            do="start the server with --generation-config vllm: the model's own would end and cut responses elsewhere",
        )
    return tokens, logprobs


def _other_form(client: Client, expected: str, found: Any, fault: Exception) -> ConfigError:
    return client.refusal(
        "vLLM answers in another form",
        expected=expected,
        found=f"{type(fault).__name__}: {str(found)[:200]}",
        do="this was written for version 0.32",
    )
