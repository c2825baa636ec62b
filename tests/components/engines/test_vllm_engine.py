"""A vLLM server as an engine of rollouts, against a stand-in by transformers alone: what is asked, and each fault."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from vllm_stand_in import DEFAULT_PATHS, StandIn, serving

from components.config import LanguageModel, Params, VllmAtUrl
from components.engines.sampling import draw_uniforms
from components.engines.vllm import VllmEngine
from components.engines.vllm_require import require_engine
from components.engines.vllm_responses import seed_of
from components.errors import ConfigError, EnvironmentFault, TrainingError
from components.models.adapters import new_adapter_policy
from components.models.loading import load_checkpoint
from components.models.text import Codec
from components.processes import free_port
from components.self_checks import Checks

TEMPERATURE, LONGEST = 0.7, 3
PROMPTS = [[2, 3, 4], [5, 2], [3, 3, 3, 2], [4, 5]]
AT_URL = {
    "engine": "vllm_at_url",
    "url": "http://127.0.0.1:1",
    "sleeps": False,
    "requests_at_once": 3,
    "timeout_seconds": 20.0,
    "max_probe_gap_nats_per_token": 0.01,
    "max_mismatch_kl_nats_per_token": 0.01,
    "importance_weight_cap": 2.0,
}
ADAPTER = {"kind": "rslora", "rank": 2, "alpha": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., Any], word_codec: Codec) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    random_model("llama", 6, seed=5).save_pretrained(folder)
    word_codec.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def engine_of(
    tiny_params: Callable[..., Params], stored: Path, word_codec: Codec, tmp_path: Path
) -> Iterator[Callable[..., tuple[VllmEngine, Any, StandIn]]]:
    """Makes an engine, the policy that it samples from, and the server that it asks."""
    checks = Checks()
    with ExitStack() as stack:

        def make(*faults: str, adapter: bool = False, **changes: Any) -> tuple[VllmEngine, Any, StandIn]:
            server = stack.enter_context(serving(StandIn(stored, *faults)))
            language_model = {"checkpoint": str(stored), "checkpoint_files": str(stored)}
            if adapter:
                language_model |= {"adapter": ADAPTER}  # type: ignore[dict-item]
            params = tiny_params(generation=AT_URL | {"url": server.url} | changes, language_model=language_model)
            settings = params.generation
            assert isinstance(settings, VllmAtUrl)
            policy = policy_of(params.language_model)
            engine = VllmEngine(
                *(settings, Accelerator(cpu=True), lambda: nullcontext(policy), word_codec, params.shared, PROMPTS),
                temperature=TEMPERATURE,
                folder=tmp_path / "engine",
                checks=checks,
            )
            stack.callback(engine.close)
            return engine, policy, server

        yield make


def policy_of(config: LanguageModel) -> Any:
    policy = load_checkpoint(config)
    return new_adapter_policy(policy, config, seed=1) if config.adapter else policy


def move(policy: Any, by: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=generator))


def uniforms() -> Tensor:
    return draw_uniforms(len(PROMPTS), LONGEST, torch.Generator().manual_seed(3))


@torch.no_grad()
def logprobs_by_hand(policy: Any, prompt: list[int], response: list[int]) -> list[float]:
    logits = policy(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
    table = (logits / TEMPERATURE).log_softmax(-1)
    return [float(table[place, token]) for place, token in enumerate(response)]


@pytest.mark.parametrize("adapter", [False, True], ids=["whole weights", "adapter"])
def test_responses_are_the_present_policys(engine_of: Callable[..., Any], word_codec: Codec, adapter: bool) -> None:
    engine, policy, server = engine_of(adapter=adapter)
    for _ in range(2):
        move(policy)
        assert engine.sync(1)["engine_gap"] < 1e-5
        sequences, logprobs = engine.sample(PROMPTS, uniforms(), slice(None))
        for row, prompt in enumerate(PROMPTS):
            response = sequences.response_tokens[row][sequences.response_mask[row]].tolist()
            assert len(response) == LONGEST or response[-1] == word_codec.end_id
            expected = logprobs_by_hand(policy, prompt, response)
            assert logprobs[row, : len(response)].tolist() == pytest.approx(expected, abs=1e-5)
            assert not logprobs[row, len(response) :].any()
    assert len(server.adapters) == adapter  # the one of before is gone
    engine.close()
    assert not server.adapters


def test_a_request_asks_for_the_policy_alone_and_is_the_same_again(engine_of: Callable[..., Any]) -> None:
    engine, _, server = engine_of()
    engine.sync(1)
    first = engine.sample(PROMPTS, uniforms(), slice(None))
    asked = sorted(request["seed"] for _, request, _ in server.asked if "seed" in (request or {}))
    # seeds by hand: 53 bits of each row's first number
    assert asked == sorted(int(float(row[0]) * 9007199254740992) for row in uniforms())
    request = server.asked[-1][1]
    off = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}
    assert off.items() <= request.items() and request["temperature"] == TEMPERATURE
    again = engine.sample(PROMPTS, uniforms(), slice(None))
    torch.testing.assert_close(first.sequences.response_tokens, again.sequences.response_tokens, rtol=0, atol=0)


def test_a_process_gets_its_share(engine_of: Callable[..., Any]) -> None:
    engine, _, _ = engine_of()
    engine.sync(1)
    whole = engine.sample(PROMPTS, uniforms(), slice(None))
    part = engine.sample(PROMPTS, uniforms(), slice(1, None, 2))
    width = part.logprobs.shape[1]
    torch.testing.assert_close(part.logprobs, whole.logprobs[1::2, :width], rtol=0, atol=0)


def test_it_sleeps_during_updates(engine_of: Callable[..., Any]) -> None:
    engine, policy, server = engine_of(sleeps=True)
    for _ in range(2):
        engine.sync(1)
        assert not server.asleep
        engine.sample(PROMPTS, uniforms(), slice(None))
        assert server.asleep
        engine.sample(PROMPTS, uniforms(), slice(None))  # a second round of an iteration
        assert server.asleep
        move(policy)
    engine.close()
    assert not server.asleep


def test_a_server_that_a_killed_cycle_left_asleep_is_woken(engine_of: Callable[..., Any]) -> None:
    engine, _, server = engine_of(sleeps=True)
    server.asleep = True
    assert engine.sync(1)["engine_gap"] < 1e-5


def test_a_server_that_does_not_sleep_is_refused(engine_of: Callable[..., Any]) -> None:
    """As on a CPU, where /sleep answers and does nothing."""
    engine, _, _ = engine_of("sleepless", sleeps=True)
    engine.sync(1)
    with pytest.raises(ConfigError, match="vLLM does not sleep"):
        engine.sample(PROMPTS, uniforms(), slice(None))


def test_an_adapter_that_a_killed_cycle_left_is_taken_back(engine_of: Callable[..., Any]) -> None:
    """Killed in its first iteration, a cycle begins again with the same adapter, and a name is loaded only once."""
    engine, _, server = engine_of(adapter=True)
    engine.sync(1)
    [left] = server.adapters
    engine._client, engine._adapter, engine._written = None, "", 0  # as a new process has it
    engine.sync(1)
    assert list(server.adapters) == [left]


def test_an_adapter_that_cannot_be_taken_back_hides_no_error(
    engine_of: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    engine, _, server = engine_of(adapter=True)
    engine.sync(1)
    server.answer = lambda path, content: (500, {"error": "no engine"})
    engine.close()
    assert "stays as it is" in caplog.text and "no engine" in caplog.text


def test_another_model_is_seen_at_once(engine_of: Callable[..., Any]) -> None:
    engine, policy, _ = engine_of("reload_forgotten")
    move(policy)
    with pytest.raises(TrainingError, match="the engine has not the policy's weights"):
        engine.sync(1)


@pytest.mark.parametrize("adapter", [False, True], ids=["whole weights", "adapter"])
def test_weights_of_before_are_seen_though_they_are_near(
    engine_of: Callable[..., Any], adapter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bound so wide that it alone would say nothing."""
    engine, policy, server = engine_of(adapter=adapter, max_probe_gap_nats_per_token=50.0)
    engine.sync(1)
    server.faults.add("reload_forgotten")
    if adapter:  # the new name, with what the old one loads
        before = copy.deepcopy(next(iter(server.adapters.values())))
        monkeypatch.setattr(server, "complete", lambda content: StandIn.complete(_only(server, before), content))
    move(policy, by=0.01)
    with pytest.raises(TrainingError, match="weights of before") as caught:
        engine.sync(1)
    assert caught.value.found.startswith("1 of the move, which is 0.")


def _only(server: StandIn, adapted: Any) -> StandIn:
    served = copy.copy(server)
    served.loaded, served.adapters = adapted, {}
    return served


def test_moves_too_small_to_be_told_apart_add_up(engine_of: Callable[..., Any]) -> None:
    engine, policy, server = engine_of(max_probe_gap_nats_per_token=50.0)
    engine.sync(1)
    server.faults.add("reload_forgotten")
    move(policy, by=1e-7)
    engine.sync(1)  # old and new weights answer alike
    with pytest.raises(TrainingError, match="weights of before"):
        for _ in range(20):
            move(policy, by=1e-4)
            engine.sync(1)


@pytest.mark.parametrize(
    ("fault", "adapter", "says"),
    [
        ("adapter_refused", True, "rank 16 is greater than max_lora_rank 8"),  # a fault of its own, by its status
        ("cache_kept", False, "success"),
    ],
)
def test_weights_that_are_not_taken(engine_of: Callable[..., Any], fault: str, adapter: bool, says: str) -> None:
    engine, _, server = engine_of(fault, adapter=adapter)
    with pytest.raises(EnvironmentFault if adapter else ConfigError) as caught:
        engine.sync(1)
    assert says in f"{caught.value.expected} {caught.value.found}" and server.url in caught.value.where


def test_an_adapter_that_is_not_listed_is_not_taken(engine_of: Callable[..., Any]) -> None:
    engine, _, server = engine_of("adapter_forgotten", adapter=True)
    with pytest.raises(TrainingError, match="has not taken the adapter") as caught:
        engine.sync(1)
    assert "policy-" in caught.value.found and server.url in caught.value.where


def test_a_response_that_ends_elsewhere_is_refused(engine_of: Callable[..., Any]) -> None:
    engine, _, _ = engine_of("ends_elsewhere")
    engine.sync(1)
    with pytest.raises(ConfigError, match="a response is not what was asked for"):
        engine.sample(PROMPTS * 4, draw_uniforms(16, LONGEST, torch.Generator().manual_seed(3)), slice(None))


def test_a_server_that_ends_midway_is_one_error(engine_of: Callable[..., Any]) -> None:
    engine, _, server = engine_of()
    engine.sync(1)
    engine._client.url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EnvironmentFault, match="vLLM does not answer"):
        engine.sample(PROMPTS, uniforms(), slice(None))


def at(url: str, tiny_params: Callable[..., Params], **changes: Any) -> Params:
    return tiny_params(generation=AT_URL | {"url": url} | changes)


def test_a_server_that_fits_is_taken(stored: Path, tiny_params: Callable[..., Params]) -> None:
    with serving(StandIn(stored)) as server:
        require_engine(at(server.url, tiny_params, sleeps=True), Path(), on_cpu=True)


@pytest.mark.parametrize(
    ("limit", "paths", "says"),
    [
        (29, DEFAULT_PATHS, "--max-model-len 30"),
        (30, tuple(path for path in DEFAULT_PATHS if path != "/collective_rpc"), "/collective_rpc"),
        (30, tuple(path for path in DEFAULT_PATHS if path != "/sleep"), "/sleep"),
    ],
)
def test_a_server_that_lacks_something_is_refused_before_anything(
    stored: Path, tiny_params: Callable[..., Params], limit: int, paths: tuple[str, ...], says: str
) -> None:
    """The tiny params have 24 tokens of prompt and 6 of response."""
    with serving(StandIn(stored, max_model_len=limit, paths=paths)) as server, pytest.raises(ConfigError) as caught:
        require_engine(at(server.url, tiny_params, sleeps=True), Path(), on_cpu=True)
    assert says in caught.value.expected


def test_nobody_at_the_address(tiny_params: Callable[..., Params]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EnvironmentFault, match="vLLM does not answer") as caught:
        require_engine(at(url, tiny_params), Path(), on_cpu=True)
    assert url in caught.value.where


def test_another_kind_of_server(stored: Path, tiny_params: Callable[..., Params], monkeypatch: Any) -> None:
    with serving(StandIn(stored)) as server:
        monkeypatch.setattr(server, "answer", lambda path, content: (200, {"hello": "world"}))
        with pytest.raises(ConfigError, match="no vLLM"):
            require_engine(at(server.url, tiny_params), Path(), on_cpu=True)
        monkeypatch.setattr(server, "answer", lambda path, content: (404, {"detail": "Not Found"}))
        with pytest.raises(ConfigError, match="vLLM refuses /version"):
            require_engine(at(server.url, tiny_params), Path(), on_cpu=True)


def test_a_key_comes_from_the_environment(
    stored: Path, tiny_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(StandIn(stored)) as server:
        require_engine(at(server.url, tiny_params), Path(), on_cpu=True)
        monkeypatch.setenv("PROXIMAL_VLLM_TOKEN", "a key")
        require_engine(at(server.url, tiny_params), Path(), on_cpu=True)
    keys = [key for _, _, key in server.asked]
    assert keys == [None] * (len(keys) // 2) + ["Bearer a key"] * (len(keys) // 2)


def test_seeds_of_unlike_rows_are_unlike() -> None:
    """0.5 is 2 to the power of -1: 2^52; the smallest step of the numbers is 2^-53."""
    assert seed_of(torch.tensor([0.5, 0.9], dtype=torch.float64)) == 2**52
    assert seed_of(torch.tensor([0.5 + 2**-53, 0.9], dtype=torch.float64)) == 2**52 + 1
