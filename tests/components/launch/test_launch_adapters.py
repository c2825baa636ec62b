"""Adapters trained by two processes: each holds the base, and they exchange the gradients of adapters alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launched import ROOT, TWO, ChangeParams, files
from safetensors.torch import load_file

from components.artifacts import read_json
from components.place import Place
from components.stages import perform


@pytest.mark.parametrize("stage", ["sft", "reward_model", "alignment"])
def test_two_processes_give_what_one_gives(
    adapted_world: Path, tmp_path: Path, change_adapted_params: ChangeParams, stage: str
) -> None:
    """The same weights, but for the order in which floats are added up."""
    folder, cycle = Path("artifacts", stage), ["--cycle", "1"] if stage == "alignment" else []
    if cycle:
        perform(stage, change_adapted_params(), Place(), 1)
    one = Path(shutil.copytree(folder, tmp_path / "one"))
    shutil.rmtree(folder)
    change_adapted_params(compute=TWO)
    run = subprocess.run(
        [sys.executable, "-m", "components.launch", stage, *cycle],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PROXIMAL_STATUS_FILE": str(tmp_path / "status")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    assert [path.relative_to(folder) for path in files(folder)] == [path.relative_to(one) for path in files(one)]
    stored = list(one.rglob("adapter_model.safetensors"))
    assert len(stored) == (2 if cycle else 1)
    for path in stored:
        expected, found = load_file(path), load_file(folder / path.relative_to(one))
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4)
    if cycle:
        rows, rows_of_one = (read_json(each / "1" / "curve.json") for each in (folder, one))
        assert rows[0]["kl"] == 0.0
        for row, row_of_one in zip(rows, rows_of_one, strict=True):
            assert row == pytest.approx(row_of_one, rel=1e-3, abs=1e-4)
