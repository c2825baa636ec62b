"""How many bytes of tensors live at once while code runs that computes nothing: on torch's fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage from the operation that makes it until nobody holds it any more.

    Args:
        peak: the most that lived at once since `reset`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # a check of values: there are none here, and they are taken to pass it
        if func in _INDEXING:
            args = (args[0], _in_numbers(args[1]), *args[2:])
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def reset(self) -> None:
        """Begin anew from what lives now."""
        self.peak = self.now

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


@contextmanager
def counted() -> Iterator[LiveBytes]:
    """A block in which tensors are shapes and types alone, and are counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        yield live


@contextmanager
def real() -> Iterator[None]:
    """A block inside of `counted` in which tensors are real, such as those that say where sequences end."""
    with _disable_current_modes():
        yield


def _in_numbers(indices: Any) -> list[Any]:
    """Masks as row numbers, as if they were True everywhere: how many are True is not known of a shape."""
    found: list[Any] = []
    for index in indices:
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            found += [torch.zeros(index.numel(), dtype=torch.long) for _ in range(index.dim())]
        else:
            found.append(index)
    return found
