"""What a function of core/ asks of its arguments before it computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.errors import TrainingError

# Of two logprobs' difference before exp: exp(20) = 4.9e8 says no more than "broken", and float32 overflows at 88.
LARGEST_LOG_RATIO = 20.0
_ROWS_SHOWN = 8


def require(condition: bool, name: str, *, expected: str, found: object) -> None:
    """Refuse an argument that makes no sense. Raises: ValueError with name, expected and found."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, found {found}")


def require_rank(rank: int, **tensors: Tensor) -> None:
    """Every tensor has this number of dimensions. Raises: ValueError."""
    for name, tensor in tensors.items():
        require(tensor.dim() == rank, name, expected=f"{rank} dimension(s)", found=f"shape {tuple(tensor.shape)}")


def require_shape(shape: Sequence[int], **tensors: Tensor) -> None:
    """Every tensor has this shape. Raises: ValueError."""
    for name, tensor in tensors.items():
        require(
            tuple(tensor.shape) == tuple(shape),
            name,
            expected=f"shape {tuple(shape)}",
            found=f"shape {tuple(tensor.shape)}",
        )


def require_same_shape(**tensors: Tensor) -> None:
    """All tensors have the shape of the first: no broadcasting, which hides mistakes. Raises: ValueError."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        require(
            tensor.shape == first.shape,
            name,
            expected=f"the shape of {first_name}, {tuple(first.shape)}",
            found=f"shape {tuple(tensor.shape)}",
        )


def require_bool(**masks: Tensor) -> None:
    """Every mask is bool: a mask of numbers would multiply instead of select. Raises: ValueError."""
    for name, mask in masks.items():
        require(mask.dtype == torch.bool, name, expected="dtype torch.bool", found=mask.dtype)


def require_float(**tensors: Tensor) -> None:
    """Every tensor is of a floating type. Raises: ValueError."""
    for name, tensor in tensors.items():
        require(tensor.is_floating_point(), name, expected="a floating dtype", found=tensor.dtype)


def require_integer(**tensors: Tensor) -> None:
    """Every tensor is of an integer type (bool is none). Raises: ValueError."""
    for name, tensor in tensors.items():
        integer = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
        require(integer, name, expected="an integer dtype", found=tensor.dtype)


def require_finite(name: str, values: Tensor, mask: Tensor | None = None) -> None:
    """Stop when a selected number is NaN or infinite, naming the rows (first dimension) that hold one.

    Shapes: values (), (B,) or (B, ...); mask as values, or None to select all.
    Raises: TrainingError for non-finite data; ValueError for shapes.

    Holds:
        the_offending_rows_are_named: the error lists the rows that hold a non-finite number, and no others.
    """
    broken = ~torch.isfinite(values)
    if mask is not None:
        require_same_shape(values=values, mask=mask)
        require_bool(mask=mask)
        broken = broken & mask
    if not bool(broken.any()):
        return
    if broken.dim() == 0:
        where = name
    else:
        rows = broken.reshape(broken.shape[0], -1).any(dim=1).nonzero().flatten().tolist()
        more = f" and {len(rows) - _ROWS_SHOWN} more" if len(rows) > _ROWS_SHOWN else ""
        where = f"{name}, row(s) {', '.join(str(row) for row in rows[:_ROWS_SHOWN])}{more}"
    examples = sorted({str(number) for number in values[broken].flatten()[:100].tolist()})
    raise TrainingError(
        f"{name} is not finite",
        where=where,
        expected="finite numbers",
        found=f"{int(broken.sum())} of {values.numel()} numbers are {', '.join(examples)}",
        do="look at the named rows; go on from the last good checkpoint with a smaller learning rate",
    )
