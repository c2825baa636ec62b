"""Whether predicted probabilities come true as often as they say."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.core.checks import require, require_float, require_rank, require_same_shape


class ReliabilityBin(NamedTuple):
    """One bin, lower <= probability < upper (the last one includes 1).

    size predictions fell into it; they said mean_probability on average, and came true with this frequency.
    """

    lower: float
    upper: float
    size: int
    mean_probability: float
    frequency: float


def reliability_table(probabilities: Tensor, outcomes: Tensor, bins: int) -> list[ReliabilityBin]:
    """The bins of equal width that hold a prediction, in order; empty ones are left out.

    For comparisons, give each pair in both orders (p with outcome 1, and 1 - p with outcome 0) or in a random
    one: with the chosen response always first every outcome is 1 and the table says nothing.

    Shapes: probabilities (N,) floating, outcomes (N,) of 0 and 1 or bool.
    Raises: ValueError for shapes, no prediction, bins below 1, or numbers outside of their range (NaN
    included).

    Holds:
        every_prediction_is_in_one_bin: the sizes sum to N.
    """
    require_rank(1, probabilities=probabilities)
    require_same_shape(probabilities=probabilities, outcomes=outcomes)
    require_float(probabilities=probabilities)
    require(probabilities.shape[0] > 0, "probabilities", expected="at least one", found="none")
    require(bins >= 1, "bins", expected="at least 1", found=bins)
    inside = bool(((probabilities >= 0) & (probabilities <= 1)).all())
    require(inside, "probabilities", expected="0 .. 1", found="a number outside, or NaN")
    binary = bool(((outcomes == 0) | (outcomes == 1)).all())
    require(binary, "outcomes", expected="0 and 1", found="another number")
    predicted, happened = probabilities.detach().double(), outcomes.double()
    edges = torch.arange(bins + 1, dtype=torch.float64, device=predicted.device) / bins
    bin_of = torch.bucketize(predicted, edges[1:-1], right=True)
    table = []
    for index in range(bins):
        chosen = bin_of == index
        if size := int(chosen.sum()):
            means = float(predicted[chosen].mean()), float(happened[chosen].mean())
            table.append(ReliabilityBin(float(edges[index]), float(edges[index + 1]), size, *means))
    return table


def expected_calibration_error(probabilities: Tensor, outcomes: Tensor, bins: int) -> float:
    """Mean distance of what was said from what came true: sum_b n_b / N |frequency_b - mean_probability_b|.

    (Naeini et al. 2015; Guo et al. 2017, equation 3.)

    Shapes: probabilities (N,), outcomes (N,) -> a float in 0 .. 1.
    Raises: ValueError as reliability_table.

    Holds:
        a_perfect_forecast_has_error_zero: and one that is always wrong has error 1.
        one_bin_gives_the_distance_of_the_means: |mean outcome - mean probability|.
    """
    table = reliability_table(probabilities, outcomes, bins)
    return sum(row.size * abs(row.frequency - row.mean_probability) for row in table) / probabilities.shape[0]


def pairwise_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Of each comparison 1 where the chosen response scores higher, 0 where the other does, 0.5 where they are alike.

    Shapes: scores (N,) each -> (N,).
    Raises: ValueError for shapes.

    Holds:
        ties_count_half: equal scores are as good as a coin.
    """
    require_rank(1, chosen=chosen)
    require_same_shape(chosen=chosen, rejected=rejected)
    require_float(chosen=chosen, rejected=rejected)
    return (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
