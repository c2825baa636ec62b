"""Scorers of several members: combined as worked by hand, stored and loaded, and one member as if alone."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from components.digests import digest
from components.errors import ArtifactError
from components.models.ensemble import Ensemble
from components.models.loading import (
    first_member,
    load_scalar_model,
    load_scorer,
    new_scalar_model,
    save_scalar_model,
    save_scorer,
)
from components.models.scalar_model import ScalarModel
from components.passes.forward import sequence_scores
from components.passes.sequences import Sequences

MODES = ("mean", "min", "mean_minus_std")


@pytest.fixture
def members(stored_policy: Path) -> list[ScalarModel]:
    """Three, each with a normalisation of its own."""
    models = [new_scalar_model(stored_policy, seed) for seed in (1, 2, 3)]
    for number, model in enumerate(models):
        model.classifier.config.score_mean, model.classifier.config.score_std = 0.1 * number, 0.5 + number
    return models


@torch.no_grad()
def scores_of(model: torch.nn.Module, sequences: Sequences) -> list[float]:
    scores: list[float] = sequence_scores(model, sequences).tolist()
    return scores


@torch.no_grad()
def plain(member: ScalarModel, pairs: Any) -> list[float]:
    """Hugging Face's classifier of each unpadded sequence alone, normalised."""
    config = member.classifier.config
    hidden = [member.classifier.base_model(torch.tensor([prompt + response]))[0] for prompt, response in pairs]
    return [
        (float(member.classifier.score(state)[0, -1, 0]) - config.score_mean) / config.score_std for state in hidden
    ]


def test_the_score_is_combined_as_worked_by_hand(members: Any, sequences: Sequences, pairs: Any) -> None:
    columns = list(zip(*(plain(member, pairs) for member in members), strict=True))
    expected = {
        "mean": [statistics.mean(column) for column in columns],
        "min": [min(column) for column in columns],
        "mean_minus_std": [statistics.mean(column) - 0.7 * statistics.stdev(column) for column in columns],
    }
    for mode in MODES:
        found = scores_of(Ensemble(members, mode, 0.7), sequences)  # type: ignore[arg-type]
        assert found == pytest.approx(expected[mode], abs=1e-5)
    for column in columns:
        assert max(column) - min(column) > 1e-3  # or the comparison above says little


def test_the_minimum_is_never_above_the_mean(members: Any, sequences: Sequences) -> None:
    mean, least, cautious = (
        scores_of(Ensemble(members, mode, 0.7), sequences)  # type: ignore[arg-type]
        for mode in MODES
    )
    assert all(low <= middle for low, middle in zip(least, mean, strict=True))
    assert all(low <= middle for low, middle in zip(cautious, mean, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_stored_ensemble_scores_alike(members: Any, sequences: Sequences, tmp_path: Path, mode: Any) -> None:
    save_scorer(members, mode, 0.7, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"1", "2", "3", "ensemble.json"}
    loaded = load_scorer(tmp_path / "model")
    assert not loaded.training
    assert scores_of(loaded, sequences) == scores_of(Ensemble(members, mode, 0.7), sequences)
    first = load_scalar_model(first_member(tmp_path / "model"))
    assert scores_of(first, sequences) == scores_of(members[0], sequences)


def test_one_member_is_stored_as_a_scalar_model(members: Any, sequences: Sequences, tmp_path: Path) -> None:
    save_scorer(members[:1], "mean", 1.0, tmp_path / "model")
    save_scalar_model(members[0], tmp_path / "alone")
    assert digest(tmp_path / "model") == digest(tmp_path / "alone")
    assert first_member(tmp_path / "model") == tmp_path / "model"
    assert scores_of(load_scorer(tmp_path / "model"), sequences) == scores_of(members[0], sequences)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ensemble.json", "{}"),
        ("ensemble.json", "[]"),
        ("ensemble.json", '{"members": 3'),
        ("ensemble.json", '{"members": 0, "ensemble": "mean", "std_coef": 1.0}'),
        ("ensemble.json", '{"members": 3, "ensemble": "median", "std_coef": 1.0}'),
        ("ensemble.json", '{"members": 4, "ensemble": "mean", "std_coef": 1.0}'),  # one more than there are
        ("2/model.safetensors", ""),
    ],
)
def test_a_damaged_ensemble_is_an_error_that_names_it(members: Any, tmp_path: Path, name: str, content: str) -> None:
    save_scorer(members, "min", 1.0, tmp_path / "model")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(ArtifactError) as caught:
        load_scorer(tmp_path / "model")
    assert str(tmp_path / "model") in caught.value.where


def test_the_file_says_how_scores_are_combined(members: Any, tmp_path: Path) -> None:
    save_scorer(members, "mean_minus_std", 0.5, tmp_path / "model")
    stored = json.loads((tmp_path / "model" / "ensemble.json").read_text())
    assert stored == {"members": 3, "ensemble": "mean_minus_std", "std_coef": 0.5}
