from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.artifacts import write_json
from components.errors import ArtifactError
from components.evaluation.model_size import ModelSize, model_size


def test_parameters_are_counted_over_all_files_of_weights(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"n_layer": 12})
    save_file({"a": np.zeros((3, 4)), "b": np.zeros(5)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"c": np.zeros((2, 2, 2))}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"not": np.zeros(1000)}, tmp_path / "optimizer.safetensors")
    assert model_size(tmp_path) == ModelSize(parameters=3 * 4 + 5 + 8, layers=12)


def test_an_adapter_counts_with_its_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "models" / "base", tmp_path / "artifacts" / "policy"
    write_json(base / "config.json", {"num_hidden_layers": 3})
    save_file({"a": np.zeros((10, 10))}, base / "model.safetensors")
    write_json(adapter / "base.json", {"checkpoint": "models/base", "commit": None, "weights": "of no account here"})
    save_file({"lora": np.zeros(7)}, adapter / "adapter_model.safetensors")
    assert model_size(adapter) == ModelSize(parameters=107, layers=3)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError) as error:
        model_size(tmp_path)
    assert error.value.where == str(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("parameters", "layers", "said"),
    [
        (242_400, 2, "2 layers, 0.24 M parameters"),
        (134_515_008, 30, "30 layers, 135 M parameters"),
        (7_241_732_096, 1, "1 layer, 7.24 B parameters"),
        (4_096, None, "4,096 parameters"),
    ],
)
def test_the_size_in_words(parameters: int, layers: int | None, said: str) -> None:
    assert str(ModelSize(parameters, layers)) == said
