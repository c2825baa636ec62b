"""The data of Q-learning: both responses of every comparison, each with a reward."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from components.config import Shared
from components.core.checks import require_finite
from components.data.rows import Comparison
from components.errors import TrainingError
from components.measuring.measure import FrozenModels
from components.passes.forward import in_microbatches
from components.passes.sequences import Sequences, comparison_pairs


class ScoredComparisons(NamedTuple):
    """N comparisons: row i of the sequences is the chosen response of comparison i, row N + i its rejected one.

    Shapes: rewards (2N,), in standard deviations of all of them.
    """

    ids: list[str]
    sequences: Sequences
    rewards: Tensor

    def both(self, comparisons: Tensor) -> Tensor:
        """Row numbers of the chosen, then of the rejected responses of these comparisons."""
        return torch.cat([comparisons, comparisons + len(self.ids)])


def score_comparisons(
    accelerator: Accelerator, frozen: FrozenModels, shared: Shared, rows: list[Comparison]
) -> ScoredComparisons:
    """Score all responses by the reward model and bring the scores to mean 0 and standard deviation 1.

    The moments are those of all rows given, both responses of each, and not of the rows that an iteration or a cycle
    uses: they are the same in every cycle, so that the Q heads go on with the rewards they began with.

    Raises:
        TrainingError: a score is not finite, or all are alike.
        ConfigError: a part of the reward model fails.
    """
    scorer, sequences = frozen.reward_model, comparison_pairs(rows, frozen.codec).to(accelerator.device)
    # Every process scores its share; the others' scores are 0 in its sum.
    scores = torch.zeros(len(sequences), device=accelerator.device)
    share = torch.arange(accelerator.process_index, len(sequences), accelerator.num_processes)
    with accelerator.autocast():
        (scores[share],) = in_microbatches(
            lambda part: (scorer.of_tokens(part),),
            sequences.rows(share),
            shared.measurement.batch_size,
        )
    scores = accelerator.reduce(scores, reduction="sum")
    scores = scorer.total(scores, frozen.text_answers(accelerator, [*rows, *rows], sequences)).total
    require_finite("q_learning, scores of the comparisons", scores)
    scores = scores.double()  # equal scores then have a standard deviation of exactly 0
    mean, std = float(scores.mean()), float(scores.std())
    if not (std > 0 and math.isfinite(std)):
        raise TrainingError(
            "the rewards cannot be normalised",
            where=f"q_learning, scores of the {len(rows)} comparisons of the reward model",
            expected="scores that differ",
            found=f"mean {mean}, standard deviation {std}",
            do="look at the reward model: every response has the same score",
        )
    return ScoredComparisons([row.id for row in rows], sequences, ((scores - mean) / std).float())
