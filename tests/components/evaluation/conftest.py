"""The records by hand are fixtures here, and the shipped params."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_by_hand import write_earlier_stages
from records_by_hand import candidate, settings, sft  # noqa: F401

from components.config import Evaluation, Params, load_params

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def params(settings: Evaluation) -> Params:  # noqa: F811
    return load_params(ROOT / "params.yaml").model_copy(update={"evaluation": settings})


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Params) -> Path:
    monkeypatch.chdir(tmp_path)
    write_earlier_stages(params)
    return tmp_path
