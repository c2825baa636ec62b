"""What a cycle begins with in place of the last one's optimiser."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from components.artifacts import read_json, write_json


def begin_anew(file: Path) -> None:
    """Make a stored AdamW what it is before its first step: no steps taken, no moments."""
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)
    noted = file.with_name("as_stored.json")  # or the cycle that goes on would find what was done here
    content = read_json(noted)
    write_json(noted, content | {"optimizer": dict.fromkeys(content["optimizer"], 0)})
