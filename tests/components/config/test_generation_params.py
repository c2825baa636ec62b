"""What params may say of the engine that samples rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.config import Own, Params, VllmAtUrl, VllmStarted
from components.errors import ConfigError

COMMON = {
    "sleeps": False,
    "requests_at_once": 8,
    "timeout_seconds": 60.0,
    "max_probe_gap_nats_per_token": 0.1,
    "max_mismatch_kl_nats_per_token": 0.01,
    "importance_weight_cap": 2.0,
}
STARTED: dict[str, Any] = COMMON | {
    "engine": "vllm",
    "command": [".venv-vllm/bin/vllm"],
    "arguments": ["--enforce-eager"],
    "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
    "dtype": "bfloat16",
    "start_timeout_seconds": 600.0,
}
AT_URL: dict[str, Any] = COMMON | {"engine": "vllm_at_url", "url": "http://127.0.0.1:8000"}


def test_each_engine_has_its_own_keys(tiny_params: Callable[..., Params]) -> None:
    assert isinstance(tiny_params().generation, Own)
    assert isinstance(tiny_params(generation=STARTED).generation, VllmStarted)
    assert isinstance(tiny_params(generation=AT_URL).generation, VllmAtUrl)


@pytest.mark.parametrize(
    ("generation", "key"),
    [
        ({"engine": "sglang"}, "generation"),
        (AT_URL | {"dtype": "bfloat16"}, "generation.dtype"),
        (AT_URL | {"url": "http://user:secret@127.0.0.1:8000"}, "generation.url"),
        (AT_URL | {"url": "http://127.0.0.1:8000/v1"}, "generation.url"),
        (STARTED | {"url": "http://127.0.0.1:8000"}, "generation.url"),
        (STARTED | {"arguments": ["--logprobs-mode", "raw_logprobs"]}, "generation.arguments"),
        (STARTED | {"arguments": ["--generation-config=auto"]}, "generation.arguments"),
        (STARTED | {"importance_weight_cap": 0.0}, "generation.importance_weight_cap"),
    ],
)
def test_what_would_be_ignored_or_bend_the_policy_is_refused(
    tiny_params: Callable[..., Params], shipped: dict[str, Any], generation: dict[str, Any], key: str
) -> None:
    from components.config import parse_params

    with pytest.raises(ConfigError) as caught:
        parse_params(shipped | {"generation": generation}, "params of a test")
    assert caught.value.where == f"params of a test: {key}"


@pytest.mark.parametrize("method", ["dpo", "best_of_n", "q_learning"])
def test_a_method_without_rollouts_needs_no_other_engine(tiny_params: Callable[..., Params], method: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_params(method=method, generation=AT_URL)
    assert method in caught.value.expected


def test_an_adapter_that_vllm_refuses(tiny_params: Callable[..., Params]) -> None:
    adapter = {"kind": "dora", "rank": 8, "alpha": 16, "target_modules": "all-linear"}
    with pytest.raises(ConfigError) as caught:
        tiny_params(generation=AT_URL, language_model={"checkpoint": "somewhere", "adapter": adapter})
    assert "lora or rslora" in caught.value.expected
