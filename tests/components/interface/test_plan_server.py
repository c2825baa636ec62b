"""A vLLM server in `proximal plan`: bytes counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import Params
from components.interface.plan.device import GIB, Device
from components.interface.plan.estimate import estimate
from components.interface.plan.models import shape_of
from components.interface.plan.roles import Phase
from components.interface.plan.server import Server, server_of
from components.interface.plan.table import plan_tables
from components.place import Place

VOCABULARY, HIDDEN, INNER, LAYERS = 300, 8, 16, 2
PARAMETERS = VOCABULARY * HIDDEN + LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN) + HIDDEN
WRITTEN = PARAMETERS + VOCABULARY * HIDDEN  # a tied head is written apart
VLLM: dict[str, Any] = {
    "engine": "vllm",
    "command": ["vllm"],
    "arguments": [],
    "environment": {"VLLM_CPU_KVCACHE_SPACE": "3"},
    "dtype": "bfloat16",
    "start_timeout_seconds": 60.0,
    "sleeps": False,
    "requests_at_once": 8,
    "timeout_seconds": 60.0,
    "max_probe_gap_nats_per_token": 0.1,
    "max_mismatch_kl_nats_per_token": 0.01,
    "importance_weight_cap": None,
}
AT_URL = {key: value for key, value in VLLM.items() if key not in ("command", "arguments", "environment", "dtype",
          "start_timeout_seconds")} | {"engine": "vllm_at_url", "url": "http://127.0.0.1:1"}  # fmt: skip
CPU, H100 = Device("this machine", 16 * GIB, is_gpu=False), Device("h100", 80 * GIB, is_gpu=True)


@pytest.fixture
def params_of(tiny_params: Callable[..., Params]) -> Callable[..., Params]:
    """params_of(generation, **changes of language_model)."""
    scratch = {"vocabulary_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER, "layers": LAYERS,
               "attention_heads": 2}  # fmt: skip
    model = {"scratch": scratch, "max_prompt_tokens": 6, "max_response_tokens": 4}
    return lambda generation, **changes: tiny_params(language_model=model | changes, generation=generation)


@pytest.fixture
def server(params_of: Callable[..., Params]) -> Callable[..., Server | None]:
    """server(device, generation): what is planned of it."""

    def planned(device: Device, generation: dict[str, Any], **changes: Any) -> Server | None:
        params = params_of(generation, **changes)
        shape = shape_of(params_of(generation).language_model, VOCABULARY)
        return server_of(params, shape, PARAMETERS, device, processes=1)

    return planned


def of_phases(found: Server) -> list[int]:
    made = {"training": 0, "work": 0, "parameters": 0, "whole_model": 0}
    names = [
        ("alignment", "rollouts"),
        ("alignment", "scoring"),
        ("alignment", "updates"),
        ("evaluation", "generation"),
    ]
    return [found.of_phase(Phase(name, stage, name, {}, **made)) for stage, name in names]


def test_on_a_cpu_it_takes_its_weights_and_its_cache(server: Callable[..., Server | None]) -> None:
    """While they are brought, whole weights are there once more, in our process; other stages have no server."""
    found = server(CPU, VLLM)
    assert found is not None and GIB < found.beside < 2 * GIB
    whole = 2 * WRITTEN + 3 * GIB + found.beside
    assert of_phases(found) == [whole + 2 * WRITTEN, whole, whole, 0]
    adapter = {"kind": "lora", "rank": 2, "alpha": 4, "target_modules": ["q_proj"]}
    served = server(CPU, VLLM, checkpoint="somewhere", adapter=adapter)  # its base, as its checkpoint is
    assert served is not None and (served.weights, served.written) == (2 * PARAMETERS, 0)


@pytest.mark.parametrize(
    ("arguments", "share"),
    [([], 0.92), (["--gpu-memory-utilization", "0.5"], 0.5), (["--gpu-memory-utilization=0.25"], 0.25)],
)
def test_on_a_gpu_it_takes_its_share(server: Callable[..., Server | None], arguments: list[str], share: float) -> None:
    found = server(H100, VLLM | {"arguments": arguments})
    assert found is not None
    expected = pytest.approx(share * H100.memory, abs=1)  # reason: whole bytes
    assert of_phases(found) == [expected, expected, expected, 0]
    asleep = server(H100, VLLM | {"arguments": arguments, "sleeps": True})
    assert asleep is not None  # awake it samples; asleep only what is not counted by its allocator stays
    assert of_phases(asleep) == [expected, GIB // 2, GIB // 2, 0]


def test_a_cache_of_a_given_size(server: Callable[..., Server | None]) -> None:
    found = server(H100, VLLM | {"arguments": ["--kv-cache-memory-bytes=1000"]})
    assert found is not None and found.total == 2 * WRITTEN + 1000 + GIB // 2


def test_one_that_is_elsewhere_takes_nothing(server: Callable[..., Server | None]) -> None:
    assert server(CPU, AT_URL) is None and server(CPU, {"engine": "own"}) is None
    assert server(H100, VLLM | {"environment": {"CUDA_VISIBLE_DEVICES": "1"}}) is None
    assert server(H100, VLLM | {"environment": {"CUDA_VISIBLE_DEVICES": "0"}}) is not None


def test_it_is_a_row_of_the_plan_and_what_makes_it_fit_is_named(
    params_of: Callable[..., Params], tmp_path: Path
) -> None:
    params = params_of(VLLM)
    config = tmp_path / params.compute.accelerate_config
    config.parent.mkdir(parents=True)
    config.write_text((Path(__file__).parents[3] / "infra" / "accelerate" / config.name).read_text())
    found = estimate(params, Place(tmp_path), Device("a GPU", round(1.2 * GIB), is_gpu=True))
    assert not found.fits and found.peak.phase.stage == "alignment"
    knobs = dict(found.knobs)  # 0.92 of it and two contexts of half a GiB are too much, 0.4 of it is not
    assert knobs["generation.arguments: --gpu-memory-utilization=0.4"] < 1.2 * GIB
    in_phases = {row.phase.name: row.server for row in found.rows if row.server}
    assert found.server is not None
    assert in_phases == dict.fromkeys(["rollouts", "scoring", "updates"], found.server.total)
    table: Any = plan_tables(found).renderables[0]
    assert "alignment, the vLLM server" in list(table.columns[0].cells)
    assert json.loads(json.dumps(found.plain()))["server"]["bytes"] == found.server.total
