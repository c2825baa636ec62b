"""What tests of planted faults share: a stage by its entry, and what it says when a check stops it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.alignment.policy_gradient.update import Updater
from components.launch import main
from components.place import Place
from components.stages import perform

Stopped = Callable[..., str]


@pytest.fixture
def stopped(capsys: pytest.CaptureFixture[str]) -> Stopped:
    """Runs a stage as `python -m components.launch` does, sees that it exits with status 2, and gives what it said."""

    def run(*arguments: str) -> str:
        with patch.dict(os.environ), pytest.raises(SystemExit) as ended:
            main.main(list(arguments or ("alignment", "--cycle", "1")), standalone_mode=False)
        errors = capsys.readouterr().err
        assert ended.value.code == 2, errors
        said = errors[errors.index("error: ") :]
        assert all(f"  {word}:" in said for word in ("where", "expected", "found", "what to do")), said
        return said

    return run


def interrupted(params: object, stop_in: int) -> Path:
    """A cycle of a method with rollouts that is killed in the updates of an iteration; the folder of what it has."""
    real = Updater.update

    def stops(updater: Updater, *arguments: object) -> object:
        if arguments[-1] == stop_in - 1:
            raise KeyboardInterrupt
        return real(updater, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Updater, "update", stops)
        with pytest.raises(KeyboardInterrupt):
            perform("alignment", params, Place(), 1)  # type: ignore[arg-type]
    [folder] = (path for path in Place().work.iterdir() if path.is_dir())
    return folder


def nudge(file: Path, name: str) -> None:
    """Change one number of a stored tensor, by its last bit."""
    tensors = load_file(file)
    flat = tensors[name].flatten()
    flat[0] = torch.nextafter(flat[0], flat[0] + 1)
    tensors[name] = flat.view_as(tensors[name])
    save_file(tensors, file, metadata={"format": "pt"})
