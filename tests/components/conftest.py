"""A tiny pipeline, trained once a session, that tests copy; and what every test of the numbers runs under."""

from __future__ import annotations

import os

# Read when torch, transformers and MLflow are first imported, so before anything else here.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MKL_CBWR="AUTO",  # as every stage has it
    CUBLAS_WORKSPACE_CONFIG=":4096:8",
    ACCELERATE_USE_CPU="true",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    TOKENIZERS_PARALLELISM="false",
)

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from architectures import (  # noqa: F401  fixtures for all tests below this folder
    pairs,
    random_causal_model,
    random_model,
    response_logits,
    sequences,
    stored_policy,
    stored_scalar_model,
    word_codec,
    word_policy,
)
from ruamel.yaml import YAML
from vllm_stand_in import served  # noqa: F401

from components.artifacts import write_jsonl
from components.config import Params, load_params, parse_params

ROOT = Path(__file__).resolve().parents[2]
Tree = dict[str, Any]

TINY_PPO: Tree = {
    "iterations_per_cycle": 3,
    "rollouts_per_iteration": 8,
    "epochs": 2,
    "minibatches": 2,
    "microbatch_size": 2,
    "kl_horizon_rollouts": 100,
}
TINY_DPO: Tree = {
    "iterations_per_cycle": 3,
    "comparisons_per_iteration": 4,
    "batch_size": 2,
    "microbatch_size": 1,
    "progress_prompts": 4,
}
TINY_ONLINE_DPO: Tree = {
    "iterations_per_cycle": 3,
    "prompts_per_iteration": 4,
    "responses_per_prompt": 2,
    "batch_size": 2,
    "microbatch_size": 1,
}
# What makes the shipped params tiny: everything else is as shipped.
TINY: Tree = {
    "compute": {
        "accelerate_config": "infra/accelerate/cpu.yaml",  # in which what tests train within their process is trained
        "cpu_threads": dict.fromkeys(("sft", "reward_model", "judge", "alignment", "evaluation", "promotion"), 1),
    },
    "language_model": {
        "max_prompt_tokens": 24,
        "max_response_tokens": 6,
        "scratch": {
            "vocabulary_size": 300,
            "hidden_size": 16,
            "intermediate_size": 16,
            "layers": 1,
            "attention_heads": 2,
        },
    },
    "sft": {"learning_rate": 0.02, "epochs": 6, "batch_size": 8, "microbatch_size": 4},
    "reward_model": {"epochs": 1, "batch_size": 8, "microbatch_size": 4, "normalisation_prompts": 8},
    "judge": {"epochs": 1, "batch_size": 8, "microbatch_size": 4, "normalisation_prompts": 8},
    "ppo": TINY_PPO,
    "grpo": TINY_PPO | {"responses_per_prompt": 2},
    "rloo": TINY_PPO | {"responses_per_prompt": 2},
    "dpo": TINY_DPO,
    "online_dpo": TINY_ONLINE_DPO,
    "best_of_n": {"first_n": 2, "progress_prompts": 4},
    "q_learning": {
        "iterations_per_cycle": 3,
        "comparisons_per_iteration": 8,
        "batch_size": 4,
        "microbatch_size": 2,
        "progress_prompts": 4,
        # every part of the loss at work, and soon to be seen
        "learning_rate": 1.0e-4,
        "tau": 0.8,
        "cql_coef": 0.1,
        "awac_coef": 1.0,
        "polyak_alpha": 0.1,
        "decode_beta": 1.0,
    },
    "cycles": {"1": {"start": "artifacts/sft"}, "2": {"start": "artifacts/alignment/1"}},
    "measurement": {"batch_size": 8, "validation_samples_per_prompt": 2},
}

# Any device may do what nobody knows a remedy for, so that the rubric can read every one of these.
FAULTS = ("counts to seven", "laughs in the dark", "attracts many cats")
DEVICES = ("printer", "router", "screen", "keyboard", "scanner", "laptop")
PROMPTS = [f"My {device} {fault}. What is wrong with it?" for fault in FAULTS for device in DEVICES]


def merged(base: Tree, changes: Tree) -> Tree:
    """A deep copy of `base` with `changes` in it; what is no section, or is cycles or parts, is replaced whole."""
    return base | {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict) and key not in ("cycles", "parts")
        else value
        for key, value in changes.items()
    }


def write_params(folder: Path, changes: Tree) -> Params:
    """Write the tiny params with changes into a folder, and read them back as the product does."""
    shipped = YAML(typ="safe").load(ROOT / "params.yaml")
    YAML(typ="safe").dump(merged(merged(shipped, TINY), changes), folder / "params.yaml")
    return load_params(folder / "params.yaml")


@pytest.fixture(scope="session")
def shipped() -> Tree:
    """The shipped params.yaml as plain values."""
    values: Tree = YAML(typ="safe").load(ROOT / "params.yaml")
    return values


@pytest.fixture(scope="session")
def tiny_params(shipped: Tree) -> Callable[..., Params]:
    """The tiny params, with changes, e.g. tiny_params(ppo={"epochs": 1})."""
    return lambda **changes: parse_params(merged(merged(shipped, TINY), changes), "params of a test")


@pytest.fixture(scope="session")
def change_params() -> Callable[..., Params]:
    """Writes the tiny params with changes to the working directory, e.g. change_params(ppo={"epochs": 1})."""
    return lambda **changes: write_params(Path(), changes)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of one MLflow store for the session."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def raw_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params, an Accelerate config and clean data, before any training."""
    folder = tmp_path_factory.mktemp("raw_world")
    shutil.copytree(ROOT / "infra" / "accelerate", folder / "infra" / "accelerate")
    write_params(folder, {})
    clean = folder / "artifacts" / "data_validation" / "clean"
    answers = ["yes", "no", "ask", "go on"]  # so short that responses may end within six tokens

    def prompt_rows(prompts: list[str]) -> list[Tree]:
        return [{"id": prompt, "prompt": prompt, "kind": "unknown"} for prompt in prompts]

    def comparison_rows(prompts: list[str], shift: int) -> list[Tree]:
        return [
            {"id": str(i), "prompt": prompt, "chosen": answers[(i + shift) % 4], "rejected": answers[(i * i) % 3]}
            for i, prompt in enumerate(prompts)
            if answers[(i + shift) % 4] != answers[(i * i) % 3]
        ]

    demonstrations = [
        {"id": str(i), "prompt": prompt, "response": answers[i % 4], "source": "expert"}
        for i, prompt in enumerate(PROMPTS)
    ]
    write_jsonl(clean / "demonstrations.jsonl", demonstrations)
    write_jsonl(clean / "prompts_train.jsonl", prompt_rows(PROMPTS[:11]))
    write_jsonl(clean / "prompts_validation.jsonl", prompt_rows(PROMPTS[11:15]))
    write_jsonl(clean / "prompts_test.jsonl", prompt_rows(PROMPTS[15:]))
    for number, stage in enumerate(("reward_model", "judge")):
        write_jsonl(clean / f"comparisons_{stage}.jsonl", comparison_rows(PROMPTS[:14], number + 1))
        write_jsonl(clean / f"comparisons_{stage}_heldout.jsonl", comparison_rows(PROMPTS[14:], number + 1))
        write_jsonl(clean / f"comparisons_{stage}_heldout_pairs.jsonl", comparison_rows(PROMPTS[:6], number + 2))
    return folder


def trained(folder: Path, params: Params, tracking: str) -> Path:
    """The folder of a project, its SFT policy and scorers trained."""
    from components.place import Place
    from components.stages import perform

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        for stage in ("sft", "reward_model", "judge"):
            perform(stage, params, Place())
    return folder


def trained_on_checkpoint(architecture: str, folder: Path, changes: Tree, tracking: str) -> Path:
    """The folder of a project, trained on a random checkpoint with a tokenizer of its own."""
    from components.models.text import train_tokenizer

    tokenizer = train_tokenizer([*PROMPTS, "yes", "no", "ask", "go on"], 300)
    tokenizer.save_pretrained(folder / "models" / "tiny")
    random_causal_model(architecture, 300, seed=3).save_pretrained(folder / "models" / "tiny")
    return trained(folder, write_params(folder, changes), tracking)


def working_copy(world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a trained world, as working directory."""
    folder = Path(shutil.copytree(world, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def trained_world(raw_world: Path, tracking: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after SFT, reward model and judge; to be read, or copied, but not written to."""

    folder = Path(shutil.copytree(raw_world, tmp_path_factory.mktemp("trained_world") / "world"))
    return trained(folder, load_params(folder / "params.yaml"), tracking)


@pytest.fixture
def world(trained_world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained world, as working directory."""
    return working_copy(trained_world, tracking, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def adapted_params() -> Tree:
    """Changes of the params by which all is trained as adapters of a checkpoint in models/tiny."""
    adapter = {"kind": "lora", "rank": 4, "alpha": 8, "target_modules": "all-linear"}
    return {
        "language_model": {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny", "adapter": adapter},
        # Few responses end, and alike ones teach nothing.
        "policy_gradient": {"missing_eos": "none"},
        "online_dpo": {"missing_eos": "none"},
    }


@pytest.fixture(scope="session")
def trained_adapted_world(
    raw_world: Path, adapted_params: Tree, tracking: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As trained_world, with adapters on a random Llama with a tokenizer of its own; to be read or copied only."""
    folder = Path(shutil.copytree(raw_world, tmp_path_factory.mktemp("trained_adapted_world") / "world"))
    return trained_on_checkpoint("llama", folder, adapted_params, tracking)


@pytest.fixture(scope="session")
def gemma_params() -> Tree:
    """Changes of the params by which a Gemma 3 in models/tiny is trained, with what large models need."""
    frugal = {"vocabulary_chunk": 64, "gradient_checkpointing": True, "offload_frozen": True}
    return {
        "language_model": {"checkpoint": "models/tiny", "checkpoint_files": "models/tiny", **frugal},
        "policy_gradient": {"missing_eos": "none"},  # few responses end
    }


@pytest.fixture(scope="session")
def trained_gemma_world(
    raw_world: Path, gemma_params: Tree, tracking: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As trained_world, of a random Gemma 3: a layer that sees the last tokens alone, and one that sees all."""
    folder = Path(shutil.copytree(raw_world, tmp_path_factory.mktemp("trained_gemma_world") / "world"))
    return trained_on_checkpoint("gemma3_text", folder, gemma_params, tracking)


@pytest.fixture
def adapted_world(trained_adapted_world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained world of adapters, as working directory."""
    return working_copy(trained_adapted_world, tracking, tmp_path, monkeypatch)


@pytest.fixture
def change_adapted_params(adapted_params: Tree) -> Callable[..., Params]:
    """As change_params, in the world of adapters."""
    return lambda **changes: write_params(Path(), merged(adapted_params, changes))


@pytest.fixture
def use_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets what follows in the test compute on a GPU, in a precision of Accelerate's."""
    from accelerate.state import AcceleratorState

    from components.training.accelerator import start_accelerator

    def use(precision: str) -> None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert start_accelerator().device.type == "cuda"

    yield use
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
