"""A checkpoint whose weights are a pickle is refused, and what the pickle would run is not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import ArtifactError
from components.models.loading import load_policy, save_policy
from components.models.text import Codec


class Planted:
    """What runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.file),)


def test_a_pickle_is_not_opened(word_policy: Any, word_codec: Codec, tmp_path: Path) -> None:
    folder, planted = tmp_path / "policy", tmp_path / "planted"
    save_policy(word_policy, word_codec, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Planted(planted)}, folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        load_policy(folder)
    assert not planted.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert planted.exists()  # it would have
