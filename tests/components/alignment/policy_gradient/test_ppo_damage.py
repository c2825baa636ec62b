"""A cycle that starts from damaged files, or from what is not there any more, is an error that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_cycles import Interruption
from safetensors.torch import load_file, save_file

from components.artifacts import read_json, write_json
from components.errors import ArtifactError


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_another_model(file: Path) -> None:
    save_file({name.replace("policy.", "other."): value for name, value in load_file(file).items()}, file)


def of_another_shape(file: Path) -> None:
    save_file({name: value if value.dim() == 0 else torch.zeros(3) for name, value in load_file(file).items()}, file)


def without_a_key(file: Path) -> None:
    content = read_json(file)
    del content["kl_coef"]
    write_json(file, content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state/progress.json", cut_short),
        ("state/progress.json", without_a_key),
        ("state/value_model/model.safetensors", cut_short),
        ("policy/model.safetensors", cut_short),
    ],
)
def test_a_damaged_start_is_an_error_that_names_it(
    cycle: Any, tiny_params: Any, name: str, damage: Callable[[Path], None]
) -> None:
    params = tiny_params(ppo={"iterations_per_cycle": 1})
    cycle(params, "first")
    damage(Path("first", name))
    with pytest.raises(ArtifactError) as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert "first" in caught.value.where
    assert not Path("second").exists()


@pytest.mark.parametrize("damage", [cut_short, of_another_model, of_another_shape, Path.unlink])
def test_a_damaged_optimiser_of_an_interrupted_cycle_is_an_error_that_names_it(
    cycle: Any, tiny_params: Any, damage: Callable[[Path], None]
) -> None:
    with pytest.raises(Interruption):
        cycle(tiny_params(), "work", stop_in=2)
    damage(Path("work/optimizer.safetensors"))
    with pytest.raises(ArtifactError) as caught:
        cycle(tiny_params(), "work")
    assert "work/optimizer.safetensors" in caught.value.where


def test_a_reference_that_has_moved_and_is_lost_is_not_replaced_by_the_sft_policy(cycle: Any, tiny_params: Any) -> None:
    params = tiny_params(ppo={"iterations_per_cycle": 1, "reference": "averaged", "reference_average_weight": 0.25})
    cycle(params, "first")
    shutil.rmtree("first/state/reference")
    with pytest.raises(ArtifactError) as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert "first/state/reference" in caught.value.where
