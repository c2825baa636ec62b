"""The reward model or the judge as all that scores uses it: a model on tokens, parts that read texts, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.artifacts import read_json, reading
from components.config import Data, LanguageModel
from components.config.scoring import Function, Http, Part, Rubric, Scoring, Stored, Trained, parse_parts
from components.models.adapters import freeze_adapters
from components.models.loading import load_scorer
from components.models.text import Codec
from components.passes.forward import in_microbatches, sequence_scores
from components.passes.sequences import Packed, Sequences
from components.scoring.answers import require_one
from components.scoring.columns import Row
from components.scoring.function import FunctionPart
from components.scoring.http import HttpPart
from components.scoring.rubric_part import RubricPart
from components.scoring.stored import StoredPart

SCORER_FILE = "scorer.json"  # in the folder of a scorer that is more than one trained model of weight 1
TRAINED = "trained"  # the folder of its trained model there
Answers = Mapping[str, list[float | None]]  # of the parts that read texts, by name


class TextPart(Protocol):
    """A part that reads texts."""

    @property
    def source(self) -> Any: ...

    def require(self, there: Sequence[str], data: str) -> None:
        """See that the data has its columns. Raises: ConfigError."""

    def __call__(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """A number or None for every response. Raises: ConfigError."""


class PartScores(NamedTuple):
    """What one part gave. Shapes: (B,) each; values are 0 where `is_none`: there the part does not apply."""

    values: Tensor
    is_none: Tensor


class Scores(NamedTuple):
    """Shapes: total (B,). `parts` by name; empty where one trained model is all."""

    total: Tensor
    parts: Mapping[str, PartScores]


class Scorer:
    """sum_i weight_i * part_i, where a part that does not apply to a response adds nothing.

    Args:
        token_model: what was trained, on tokens; None without such a part.
        trained: its name and weight.
        text_parts: the others, with their weights.
    """

    def __init__(
        self,
        token_model: nn.Module | None,
        trained: tuple[str, float] = (TRAINED, 1.0),
        text_parts: Mapping[str, tuple[float, TextPart]] | None = None,
    ) -> None:
        self.token_model = token_model
        self._name, self._weight = trained
        self._text_parts = dict(text_parts or {})

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, held_as: LanguageModel | None = None, data: Data | None = None
    ) -> Scorer:
        """A scorer that a stage stored, never to be trained.

        Args:
            held_as: how its trained model is held.
            data: has the rubric, where that is a part.

        Raises:
            ArtifactError: absent, half-written or corrupt.
            ConfigError: a function, a checkpoint or the rubric cannot be used.
        """
        if not (folder / SCORER_FILE).exists():
            return cls(_frozen(folder, device, held_as))
        with reading("scorer", folder / SCORER_FILE, "section, parts and normalisation"):
            content = read_json(folder / SCORER_FILE)
            section, parts = str(content["section"]), parse_parts(content["parts"])
            moments = {name: (float(mean), float(std)) for name, (mean, std) in content["normalisation"].items()}
        model = _frozen(folder / TRAINED, device, held_as) if (folder / TRAINED).exists() else None
        return cls(model, trained_of(parts), text_parts(parts, section, device, data, moments))

    @property
    def models(self) -> list[nn.Module]:
        """What reads tokens."""
        return [] if self.token_model is None else [self.token_model]

    @property
    def reads_texts(self) -> bool:
        """Whether any part does."""
        return bool(self._text_parts)

    def require(self, there: Sequence[str], data: str) -> None:
        """See that the data has the columns that parts ask for. Raises: ConfigError."""
        for _, part in self._text_parts.values():
            part.require(there, data)

    def of_tokens(self, sequences: Sequences | Packed) -> Tensor:
        """What the trained model gives; 0 without one. Shapes: (B,)."""
        if self.token_model is not None:
            return sequence_scores(self.token_model, sequences)
        packed = isinstance(sequences, Packed)
        rows = sequences.shape[0] if isinstance(sequences, Packed) else len(sequences)
        return torch.zeros(rows, device=(sequences.tokens if packed else sequences.response_tokens).device)

    def of_texts(self, rows: Sequence[Row], responses: Sequence[str]) -> Answers:
        """What the other parts give, by name.

        Raises:
            ConfigError: a part fails, gives no numbers, or applies to no response at all.
        """
        answers: dict[str, list[float | None]] = {}
        for name, (_, part) in self._text_parts.items():
            answers[name] = part(rows, responses)
            require_one(answers[name], part.source)
        return answers

    def total(self, of_tokens: Tensor, of_texts: Answers) -> Scores:
        """All parts as one. A part of weight 0 is only shown. Shapes: of_tokens (B,)."""
        if not self._text_parts and self._weight == 1.0:
            return Scores(of_tokens, {})
        parts: dict[str, PartScores] = {}
        total = torch.zeros_like(of_tokens)
        if self.token_model is not None:
            parts[self._name] = PartScores(of_tokens, torch.zeros_like(of_tokens, dtype=torch.bool))
            total = total + self._weight * of_tokens if self._weight else total
        for name, (weight, _) in self._text_parts.items():
            answers, device = of_texts[name], of_tokens.device
            values = torch.tensor([answer or 0.0 for answer in answers], dtype=torch.float32, device=device)
            parts[name] = PartScores(values, torch.tensor([answer is None for answer in answers], device=device))
            total = total + weight * values if weight else total
        return Scores(total, parts)

    def scores(
        self,
        rows: Sequence[Row],
        sequences: Sequences,
        codec: Codec,
        batch_size: int,
        responses: list[str] | None = None,
    ) -> Scores:
        """The scores of whole sequences, on the CPU.

        Args:
            responses: their texts; None for what the tokens say.
        """
        device = next(self.token_model.parameters()).device if self.token_model is not None else torch.device("cpu")
        (tokens,) = in_microbatches(lambda part: (self.of_tokens(part),), sequences.to(device), batch_size)
        texts = codec.decode(sequences.responses()) if self._text_parts and responses is None else responses
        return self.total(tokens.cpu(), self.of_texts(rows, texts or []) if self._text_parts else {})


def _frozen(folder: Path, device: torch.device, held_as: LanguageModel | None) -> nn.Module:
    model = load_scorer(folder, held_as).to(device)
    freeze_adapters(model)
    return model


def text_parts(
    parts: Mapping[str, Part],
    section: str,
    device: torch.device,
    data: Data | None,
    moments: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, tuple[float, TextPart]]:
    """The parts that read texts, ready, with their weights.

    Args:
        section: "reward_model" or "judge", for errors.
        moments: mean and standard deviation that a checkpoint's scores are normalised by.

    Raises:
        ConfigError: a function or the rubric cannot be used.
    """
    made: dict[str, tuple[float, TextPart]] = {}
    for name, part in parts.items():
        key = f"{section}.parts.{name}"
        match part:
            case Stored():
                made[name] = part.weight, StoredPart(part, key, *(moments or {}).get(name, (0.0, 1.0)), device)
            case Function():
                made[name] = part.weight, FunctionPart(part, key)
            case Http():
                made[name] = part.weight, HttpPart(part, key)
            case Rubric():
                made[name] = part.weight, RubricPart(data, key)
    return made


def trained_of(parts: Mapping[str, Part]) -> tuple[str, float]:
    """Name and weight of the trained part; what stands for it where there is none."""
    trained = ((name, part.weight) for name, part in parts.items() if isinstance(part, Trained))
    return next(trained, (TRAINED, 1.0))


def content(settings: Scoring, section: str, moments: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What SCORER_FILE holds; see `Scorer.load`."""
    parts = {name: part.model_dump(mode="json") for name, part in settings.parts.items()}
    return {"section": section, "parts": parts, "normalisation": {name: list(pair) for name, pair in moments.items()}}


def means_of_parts(scorer: str, parts: Mapping[str, PartScores]) -> dict[str, float]:
    """As curves have them, as "reward/correct": the mean of each, and where there is any the share of None."""
    means: dict[str, float] = {}
    for name, part in parts.items():
        means[f"{scorer}/{name}"] = float(part.values.mean())
        if none := float(part.is_none.float().mean()):
            means[f"{scorer}/{name}_none"] = none
    return means


def trained_folder(folder: Path) -> Path | None:
    """Where the trained model of a stored scorer lies; None where it has none."""
    if not (folder / SCORER_FILE).exists():
        return folder
    return folder / TRAINED if (folder / TRAINED).exists() else None
