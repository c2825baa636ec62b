"""`proximal evaluate`: any policy, measured as the stage evaluation measures the candidate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config import Params
from components.errors import ArtifactError, ConfigError
from components.interface.evaluate import evaluate
from components.place import Place
from components.tracking import stage_run
from components.tracking.registration import register
from components.tracking.registry import set_alias


@pytest.fixture
def params(change_params: Callable[..., Params]) -> Params:
    return change_params(measurement={"test_samples_per_prompt": 2})


@pytest.fixture
def moved(world: Path) -> str:
    """The SFT policy with other weights."""
    folder = Path(shutil.copytree(Place().sft / "policy", "moved"))
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    noisy = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_the_sft_policy_is_as_good_as_itself(world: Path, params: Params) -> None:
    comparison: Any = evaluate(str(Place().sft / "policy"), params, Place())
    assert comparison["candidate"]["kl"]["mean"] == 0.0
    assert {metric["mean"] for metric in comparison["difference"].values()} == {0.0}


def test_another_policy_is_another_and_its_figures_are_kept(world: Path, params: Params, moved: str) -> None:
    comparison: Any = evaluate(moved, params, Place(), Path("figures"))
    assert comparison["candidate"]["kl"]["mean"] > 0.01  # reason: a distance that is there, not a tolerance
    assert json.loads(Path("figures/metrics.json").read_text()) == comparison
    records = [json.loads(line) for line in Path("figures/records.jsonl").read_text().splitlines()]
    prompts = len((Place().clean / "prompts_test.jsonl").read_text().splitlines())
    assert [row["policy"] for row in records] == ["sft"] * 2 * prompts + ["candidate"] * 2 * prompts
    with pytest.raises(ConfigError, match="there already"):
        evaluate(moved, params, Place(), Path("figures"))


def test_a_registered_model_is_evaluated_by_its_name(world: Path, params: Params, moved: str) -> None:
    with stage_run("promotion", params) as run:
        version = register(run.run_id, "evaluated", Path(moved), {}, {"temperature": 1.0})
    set_alias(version, "champion")
    assert evaluate("evaluated@champion", params, Place()) == evaluate(moved, params, Place())


def test_what_is_no_policy_or_speaks_other_tokens_is_refused(world: Path, params: Params, moved: str) -> None:
    with pytest.raises(ArtifactError, match="this is no policy"):
        evaluate("nothing", params, Place())
    with pytest.raises(ArtifactError, match="no such registered model"):
        evaluate("nothing@champion", params, Place())
    tokenizer = Path(moved, "tokenizer.json")
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(ConfigError, match="other tokens") as caught:
        evaluate(moved, params, Place())
    assert "tokenizer.json" in caught.value.where
