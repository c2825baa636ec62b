"""How a policy is measured, chosen and judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.config.base import Count, NotNegative, Positive, Section
from components.config.scoring import FunctionName


class CycleStart(Section):
    """One cycle, by the number that is its key in `cycles`: where its policy comes from."""

    start: Annotated[str, Field(min_length=1)]


class Measurement(Section):
    """How a policy is measured, in every cycle, in the evaluation and at promotion."""

    temperature: Positive
    validation_samples_per_prompt: Count
    test_samples_per_prompt: Annotated[int, Field(ge=2)]  # the win rate holds a sample against those of other numbers
    batch_size: Count


class Selection(Section):
    """Which cycle becomes the candidate."""

    max_kl_nats_per_sequence: Positive


class Evaluation(Section):
    """The final comparison of SFT and candidate."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    shown_samples: Count


class CheckedSuite(Section):
    """A prompt set of one's own, and a function that checks the answers: what must not fall.

    Refused is a candidate whose difference to the opponent lies below 0 with its whole interval.
    """

    source: Literal["checker"]
    prompts: Annotated[str, Field(min_length=1)]  # JSONL: id, prompt or messages, and columns for the checker
    checker: FunctionName  # (prompts, responses, **columns) -> a number each, more is better
    batch_size: Count  # responses in a call of the checker
    timeout_seconds: Positive  # of a call
    max_fall: NotNegative | None  # a number: a fall of the mean beyond it refuses as well, sure or not


class LmEvalSuite(Section):
    """A task of lm-eval, of one's own, with its data beside it; refused is what a checked suite refuses."""

    source: Literal["lm_eval"]
    task: Annotated[str, Field(min_length=1)]  # its YAML file; all beside it belongs to it
    metric: Annotated[str, Field(min_length=1)]  # of the task, a number for each document, more is better: acc
    batch_size: Count  # of lm-eval's requests
    max_fall: NotNegative | None  # as of a checked suite


SuiteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Suite = Annotated[CheckedSuite | LmEvalSuite, Field(discriminator="source")]


class Promotion(Section):
    """What a candidate must do to become the champion."""

    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    min_prompts: Annotated[int, Field(ge=2)]
    max_kl_nats_per_sequence: Positive
    max_length_ratio: Positive
    allow_weak_judge: bool  # whether a judge may decide that loses to "the longer answer wins", or to chance
    suites: dict[SuiteName, Suite]  # what must not fall, by names of one's own
