"""A small proof: one graph, prepared once."""

from __future__ import annotations

import os

# Read when torch, transformers and MLflow are first imported, so before anything else here.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    ACCELERATE_USE_CPU="true",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    TOKENIZERS_PARALLELISM="false",
)

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.place import Place
from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import behaviour_rewards
from tests.proof.claims import Exact
from tests.proof.measuring import reward_distribution
from tests.proof.stages import Size, prepare, workspace

ROOT = Path(__file__).resolve().parents[2]
SEED = 1000
PPO = {
    "iterations_per_cycle": 10,
    "learning_rate_decay_iterations": 10,
    "value_warmup_iterations": 2,
    "rollouts_per_iteration": 256,
    "minibatches": 2,
}
SCORER = {"epochs": 1}
SMALL = Size(
    walks=4000,
    comparisons=400,
    sft_samples=100,
    samples=100,
    changes={"sft": {"epochs": 2}, "reward_model": SCORER, "judge": SCORER, "ppo": PPO},
)


@dataclass(frozen=True)
class Prepared:
    """A workspace in which everything but an alignment has run."""

    folder: Path
    params: dict[str, Any]
    exact: Exact


@contextlib.contextmanager
def same_environment_afterwards(tracking: str) -> Iterator[None]:
    """The stages' command sets what torch reads when it is first imported."""
    before = dict(os.environ)
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="package")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of one MLflow store for the proof."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="package")
def prepared_once(tracking: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("proof") / str(SEED)
    with (
        same_environment_afterwards(tracking),
        contextlib.chdir(ROOT),
        workspace(folder, Path("infra/presets/randomwalks.yaml"), SEED, SMALL) as params,
    ):
        prepare(params)
        graph = make_graph(SEED)
        exact = Exact(behaviour_rewards(graph), reward_distribution(Place().sft / "policy", graph))
    return Prepared(folder, params, exact)


@pytest.fixture
def prepared(prepared_once: Prepared, tracking: str) -> Iterator[Prepared]:
    """The prepared workspace, as working directory."""
    with same_environment_afterwards(tracking), contextlib.chdir(prepared_once.folder):
        yield prepared_once
