"""A scorer of several parts, or of one that is not trained: looked at, normalised, measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.config import RewardModel, Shared
from components.config.scoring import Stored
from components.data.rows import Comparison, Prompt
from components.errors import ConfigError
from components.models.ensemble import Ensemble
from components.models.scalar_model import ScalarModel
from components.models.text import Codec
from components.passes.sequences import Sequences
from components.reward_model.normalisation import Samples, moments
from components.reward_model.quality import quality
from components.scoring.columns import column_names
from components.scoring.scorer import Scorer, content, text_parts, trained_of
from components.scoring.stored import StoredPart, load_classifier, load_tokenizer

logger = logging.getLogger("proximal")


@dataclass(frozen=True)
class Parts:
    """The scorer as it is, and `content` as it is stored beside what was trained."""

    scorer: Scorer
    content: dict[str, Any]
    codec: Codec
    settings: RewardModel
    label: str

    def quality(self, rows: list[Comparison], pairs: list[Comparison]) -> dict[str, float]:
        """How often the whole scorer prefers the chosen response; its scores are no logits, so nothing is calibrated.

        Without comparisons, or where they lack a column that a part asks for, there are no figures but a number.
        """
        if rows:
            try:
                self.scorer.require(column_names(rows), "the held-out comparisons")
            except ConfigError as lacking:
                logger.warning("%s: it is not held against the held-out comparisons: %s", self.label, lacking.what)
                rows = []
        return quality(self._score, rows, pairs, self.codec, self.settings, scale=None)[0]

    def _score(self, rows: list[Comparison], sequences: Sequences) -> Tensor:
        return self.scorer.scores([*rows, *rows], sequences, self.codec, 2 * self.settings.microbatch_size).total


def require_parts(
    settings: RewardModel, shared: Shared, prompts: Sequence[Prompt], label: str, device: torch.device
) -> None:
    """Refuse what is sure to fail before anything is trained.

    Raises:
        ConfigError: a function, the rubric or a checkpoint cannot be used, or a column that one asks for is not there.
    """
    for name, part in settings.parts.items():
        if isinstance(part, Stored):
            load_tokenizer(part, f"{label}.parts.{name}")
            load_classifier(part, f"{label}.parts.{name}")
    parts = text_parts(settings.parts, label, device, shared.data)
    Scorer(None, text_parts=parts).require(column_names(prompts), "the prompts")


def make_parts(
    settings: RewardModel,
    shared: Shared,
    members: list[ScalarModel],
    samples: Samples | None,
    codec: Codec,
    label: str,
    device: torch.device,
) -> Parts:
    """All parts as one scorer, those of checkpoints normalised as what is trained is.

    Args:
        members: what was trained, normalised; none without a trained part.
        samples: what checkpoints are normalised on; None without any.

    Raises:
        TrainingError: a checkpoint gives all of them the same score.
    """
    found: dict[str, tuple[float, float]] = {}
    parts = text_parts(settings.parts, label, device, shared.data)
    for name, (_, part) in parts.items():
        if isinstance(part, StoredPart):
            assert samples is not None
            responses = codec.decode(samples.sequences.responses())
            scores = torch.tensor(part(samples.rows, responses), dtype=torch.float64)
            found[name] = part.mean, part.std = moments(scores, f"{label}.parts.{name}")
    model = None
    if members:
        one = len(members) == 1
        model = members[0] if one else Ensemble(members, settings.ensemble, settings.ensemble_std_coef)
    scorer = Scorer(model, trained_of(settings.parts), parts)
    return Parts(scorer, content(settings, label, found), codec, settings, label)
