"""A real vLLM that is there: whole stages, one that is killed, two ranks, faults. `make test-vllm`."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from planted import stopped  # noqa: F401
from real_vllm import MOVES, NEEDS_VLLM, at, launch, serving, tiny_model, wait_for

from components.artifacts import read_json
from components.config import Params
from components.engines.vllm_client import Client
from components.place import Place
from components.stages import perform

pytestmark = NEEDS_VLLM
ChangeParams = Callable[..., Params]
MODEL = {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny"}
TWO = {"accelerate_config": "infra/accelerate/cpu_two_processes.yaml"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for whole weights; it has dropped to any run's weights that came last."""
    with serving(model, tmp_path_factory.mktemp("server") / "server.log") as (where, _):
        yield where


@pytest.fixture(scope="module")
def trained_project(
    raw_world: Path, model: Path, tracking: str, change_params: ChangeParams, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project whose SFT policy and scorers are trained from the model; to be copied."""
    folder = Path(shutil.copytree(raw_world, tmp_path_factory.mktemp("trained") / "world"))
    shutil.copytree(model, folder / "models" / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        params = change_params(language_model=MODEL, policy_gradient=MOVES)
        for stage in ("sft", "reward_model", "judge"):
            perform(stage, params, Place())
    return folder


@pytest.fixture
def project(trained_project: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(trained_project, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(folder)
    return folder


def iterations_kept() -> int:
    return max((len(read_json(file)) for file in Place().work.glob("alignment-1-*/curve.json")), default=0)


def curve() -> list[dict[str, float]]:
    return list(read_json(Place().alignment / "1" / "curve.json"))


def ended(*arguments: str) -> tuple[int, str]:
    process = launch(*(arguments or ("alignment", "--cycle", "1")))
    _, errors = process.communicate(timeout=900)
    return process.returncode, errors


def test_a_cycle_that_is_killed_goes_on_as_an_unbroken_one(
    project: Path, change_params: ChangeParams, url: str
) -> None:
    """With a server that is put to sleep after rollouts: killed, the cycle leaves it so, and the next one wakes it.

    The same requests are asked again, with the same seeds; in float32 they were answered alike.
    """
    changes = {"language_model": MODEL, "policy_gradient": MOVES, "ppo": {"iterations_per_cycle": 6}}
    params = change_params(generation=at(url, sleeps=True), **changes)
    perform("alignment", params, Place(), 1)
    unbroken = curve()
    shutil.rmtree(Place().alignment)
    process = launch("alignment", "--cycle", "1")
    assert wait_for(lambda: iterations_kept() >= 2 or process.poll() is not None, 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = iterations_kept()
    assert process.returncode == -signal.SIGKILL and 2 <= kept < 6
    requests.post(f"{url}/sleep?level=1", timeout=60)  # as one that is killed in its updates leaves it
    perform("alignment", params, Place(), 1)
    resumed = curve()
    assert not requests.get(f"{url}/is_sleeping", timeout=60).json()["is_sleeping"]
    alike = [row == of_one for row, of_one in zip(resumed, unbroken, strict=True)]
    print(f"{kept} of 6 iterations were kept; rows with the very bits of the unbroken cycle: {alike}")
    for row, of_one in zip(resumed, unbroken, strict=True):
        assert row == pytest.approx(of_one, rel=1e-2, abs=1e-3)  # reason: floats are added up in another order
    checks = {row["name"]: row["times"] for row in read_json(Place().alignment / "1" / "checks.json")}
    # what is resumed has nothing to compare the move of its first update with
    assert checks["engine_weights"] == checks["mismatch"] == 6 and checks["engine_move"] == 4


def test_two_ranks_and_one_server(project: Path, change_params: ChangeParams, url: str) -> None:
    changes = {"language_model": MODEL, "policy_gradient": MOVES, "generation": at(url)}
    perform("alignment", change_params(**changes), Place(), 1)
    one = curve()
    shutil.rmtree(Place().alignment)
    change_params(**changes, compute=TWO)
    status, errors = ended()
    assert status == 0, errors
    for row, of_one in zip(curve(), one, strict=True):
        assert row == pytest.approx(of_one, rel=1e-2, abs=1e-3)  # reason: floats are added up in another order


def test_online_dpo_learns_from_what_it_samples(project: Path, change_params: ChangeParams, url: str) -> None:
    online = {"missing_eos": "none", "learning_rate": 1e-2}
    generation = at(url, importance_weight_cap=None)
    params = change_params(language_model=MODEL, method="online_dpo", online_dpo=online, generation=generation)
    perform("alignment", params, Place(), 1)
    assert curve()[-1]["kl"] > 1e-3
    assert all(row["mismatch_kl"] < 1e-6 and row["engine_gap"] < 1e-4 for row in curve())


@pytest.mark.parametrize(
    ("bound", "says"),
    [(1e-3, "the engine has not the policy's weights"), (50.0, "the engine still has weights of before")],
)
def test_weights_that_it_did_not_reload(
    project: Path, change_params: ChangeParams, url: str, stopped: Callable[..., str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch, bound: float, says: str,
) -> None:  # fmt: skip
    """Planted: the second reload is not asked for."""
    generation = at(url, max_probe_gap_nats_per_token=bound)
    change_params(language_model=MODEL, policy_gradient=MOVES, generation=generation)
    real, reloads = Client.post, iter(range(9))

    def forgets(client: Client, path: str, content: Any = None) -> Any:
        if path == "/collective_rpc" and next(reloads) == 1:
            return {"results": [None]}
        return real(client, path, content)

    monkeypatch.setattr(Client, "post", forgets)
    said = stopped()
    print(said)
    assert said.startswith(f"error: {says}") and iterations_kept() == 1


def test_a_server_of_another_model(
    project: Path, change_params: ChangeParams, url: str, tmp_path: Path, stopped: Callable[..., str],  # noqa: F811
) -> None:  # fmt: skip
    """Another architecture, of which it cannot take the policy's weights."""
    scratch = {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "attention_heads": 1}
    changes: dict[str, Any] = {"language_model": {"scratch": scratch}, "policy_gradient": MOVES}
    params = change_params(**changes)
    for stage in ("sft", "reward_model", "judge"):
        perform(stage, params, Place())
    change_params(**changes, generation=at(url))
    said = stopped()
    print(said)
    assert said.startswith("error: vLLM fails at /collective_rpc") and said.count("error: ") == 1 and url in said
    # the server's engine may have died of it: nothing after this test asks it


class TestAdapters:
    """On a server for adapters of a rank up to 8."""

    @pytest.fixture(scope="class")
    def server(self, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        log = tmp_path_factory.mktemp("server") / "adapters.log"
        with serving(model, log, "--enable-lora", "--max-lora-rank", "8") as found:
            yield found

    @staticmethod
    def of(rank: int) -> dict[str, Any]:
        adapter = {"kind": "lora", "rank": rank, "alpha": 8, "target_modules": "all-linear"}
        return {"language_model": MODEL | {"adapter": adapter}, "policy_gradient": MOVES}

    @staticmethod
    def before_alignment(params: Params) -> None:
        for stage in ("sft", "reward_model", "judge"):
            perform(stage, params, Place())

    def test_a_rank_that_it_refuses(
        self, project: Path, change_params: ChangeParams, server: Any, stopped: Callable[..., str]  # noqa: F811
    ) -> None:  # fmt: skip
        self.before_alignment(change_params(**self.of(16)))
        change_params(**self.of(16), generation=at(server[0]))
        said = stopped()
        print(said)
        assert said.startswith("error: vLLM fails at /v1/load_lora_adapter")
        assert "LoRA rank 16 is greater than max_lora_rank 8" in said

    def test_it_is_killed_amid_a_cycle(
        self, project: Path, change_params: ChangeParams, server: Any, stopped: Callable[..., str]  # noqa: F811
    ) -> None:  # fmt: skip
        url, process = server
        changes = self.of(4) | {"ppo": {"iterations_per_cycle": 2000}}
        params = change_params(**changes)
        self.before_alignment(params)
        change_params(**changes, generation=at(url))
        running = launch("alignment", "--cycle", "1")
        assert wait_for(lambda: iterations_kept() >= 2 or running.poll() is not None, 300)
        process.terminate()
        process.wait()
        _, errors = running.communicate(timeout=300)
        said = errors[errors.index("error: ") :]
        print(said)
        assert running.returncode == 2 and url in said
        assert said.startswith(("error: vLLM does not answer", "error: vLLM fails"))  # by what dies first
        assert said.count("error: ") == 1 and iterations_kept() >= 2
        status, errors = ended()  # nobody is there now, which is seen before anything is loaded
        assert status == 2 and "error: vLLM does not answer" in errors and iterations_kept() >= 2
