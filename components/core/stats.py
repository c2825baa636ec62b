"""Statistics over selected tokens, and running statistics over the whole training.

What is not selected is replaced before anything is computed with it, as 0 * NaN is NaN: a NaN or infinity
outside the mask changes neither a result nor a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from components.core.checks import require, require_bool, require_finite, require_float, require_same_shape

# Inside the square root, so that nothing is divided by 0.
_VARIANCE_FLOOR = 1e-8


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the selected numbers: all of them, or along one dimension.

    Shapes: x and mask (...) -> () or (...) without dim. A sum over nothing is 0.
    Raises: ValueError for differing shapes or a mask that is not bool.

    Holds:
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
        padding_changes_nothing: appending unselected numbers leaves the statistic as it was.
    """
    require_same_shape(x=x, mask=mask)
    require_bool(mask=mask)
    selected = torch.where(mask, x, 0)
    return selected.sum() if dim is None else selected.sum(dim=dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the selected numbers: all of them, or along one dimension. The mean of booleans is a fraction.

    Shapes: x and mask (...) -> () or (...) without dim.
    Raises: ValueError as masked_sum, and where nothing is selected, for that mean does not exist.

    Holds:
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
        padding_changes_nothing: appending unselected numbers leaves the result as it was.
    """
    total = masked_sum(x, mask, dim)
    count = mask.sum() if dim is None else mask.sum(dim=dim)
    require(bool((count > 0).all()), "mask", expected="a True for every mean", found="none")
    return total / count


def masked_var(x: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """Variance of the selected numbers: sum (x - mean)^2 / (n - 1), or / n if not unbiased.

    Shapes: x and mask (...) -> ().
    Raises: ValueError as masked_sum, with fewer than 2 selected numbers (1 if not unbiased), or for integers.

    Holds:
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
        padding_changes_nothing: appending unselected numbers leaves the result as it was.
        variance_ignores_a_shift: var(x + c) = var(x).
    """
    require_float(x=x)
    mean = masked_mean(x, mask)
    count, lost = mask.sum(), 1 if unbiased else 0
    require(bool(count > lost), "mask", expected=f"at least {lost + 1} True", found=int(count))
    # Selected before it is squared: the gradient of a square is 0 * x outside, and so NaN for a NaN there.
    return torch.where(mask, x - mean, 0).square().sum() / (count - lost)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Centre the selected numbers and divide them by their standard deviation; 0 outside of the mask.

    y = (x - mean) / sqrt(var + 1e-8), var with n - 1 (as TRL and verl; LMHP and OpenRLHF divide by n).
    Advantages are whitened over the whole rollout batch, so gather it first: whitening per process gives
    another result.

    Shapes: x and mask (...) -> (...).
    Raises: ValueError as masked_var, with fewer than 2 True.

    Holds:
        nan_outside_the_mask_is_harmless: neither results nor gradients see what is not selected.
        padding_changes_nothing: appending unselected numbers leaves the result as it was.
        whitened_has_mean_zero_and_variance_one: over the selected numbers.
        whitening_ignores_shift_and_scale: whiten(a x + b) = whiten(x) for a > 0.
        permuting_the_rows_permutes_the_result: the order of the batch does not matter.
        equal_numbers_whiten_to_zero: exactly, in every dtype.
    """
    centred = torch.where(mask, x - masked_mean(x, mask), 0)
    # The mean of equal float32 numbers may be a few last bits off, which at 1000 is as much as the floor's root.
    differ = torch.where(mask, x, -torch.inf).amax() > torch.where(mask, x, torch.inf).amin()
    centred = torch.where(differ, centred, 0)
    return centred * masked_var(x, mask).add(_VARIANCE_FLOOR).rsqrt()


@dataclass(frozen=True, slots=True)
class RunningMoments:
    """Mean and variance of all numbers seen so far, in float64; `RunningMoments()` has seen none.

    m2 is the sum of squared distances from the mean. Two sets are merged by Chan, Golub and LeVeque (1979):
    mean = mean_a + d n_b / n,  m2 = m2_a + m2_b + d^2 n_a n_b / n,  with d = mean_b - mean_a and n = n_a +
    n_b.
    """

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0

    def update(self, values: Tensor) -> RunningMoments:
        """The moments after these values too; self stays as it was.

        Shapes: values (...), at least one number.
        Raises: ValueError for an empty tensor; TrainingError for a non-finite number, which would stay in
        forever.

        Holds:
            batches_merge_to_the_moments_of_the_whole: any split of the numbers gives the same moments.
        """
        require(values.numel() > 0, "values", expected="at least one number", found="none")
        require_finite("values", values)
        batch = values.detach().double()
        batch_count = float(batch.numel())
        batch_mean = float(batch.mean())
        batch_m2 = float((batch - batch_mean).square().sum())
        total = self.count + batch_count
        distance = batch_mean - self.mean
        return RunningMoments(
            count=total,
            mean=self.mean + distance * batch_count / total,
            m2=self.m2 + batch_m2 + distance**2 * self.count * batch_count / total,
        )

    @property
    def std(self) -> float:
        """Unbiased standard deviation, sqrt(m2 / (count - 1)). Raises: ValueError with fewer than 2."""
        require(self.count >= 2, "count", expected="at least 2 numbers seen", found=self.count)
        return math.sqrt(self.m2 / (self.count - 1))

    def to_dict(self) -> dict[str, float]:
        """The three numbers, for a checkpoint.

        Holds:
            moments_survive_a_checkpoint: from_dict(to_dict(moments)) equals moments to the bit.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> RunningMoments:
        """What to_dict gave. Raises: ValueError for other keys, or numbers that no data can have."""
        expected = {"count", "mean", "m2"}
        require(
            set(numbers) == expected,
            "numbers",
            expected=f"the keys {sorted(expected)}",
            found=sorted(numbers),
        )
        possible = all(map(math.isfinite, numbers.values())) and numbers["count"] >= 0 and numbers["m2"] >= 0
        require(possible, "numbers", expected="finite numbers, count and m2 not negative", found=dict(numbers))
        return cls(**{name: float(number) for name, number in numbers.items()})
