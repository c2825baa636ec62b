"""Recording a function as a CUDA graph for every shape that it is called with, and replaying it.

A pass through a small model is thousands of kernels that are shorter than the time Python takes to start them; a replay
starts them all at once. `gpu_decoding` does the same for a decoding step, which keeps a state of its own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from accelerate.utils import recursively_apply
from torch import Tensor

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")

# Of a pass's time; when Python is done with starting kernels earlier than that, the GPU is busy all the same, and a
# graph would only take memory.
_LEAST_SHARE_OF_STARTING = 0.8


@functools.cache
def recording_stream() -> torch.cuda.Stream:
    """The one stream to record on: every further one that multiplies matrices is given a workspace of its own."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class Recorded(Generic[Inputs, Outputs]):
    """A function of tensors on a GPU, replayed from the third call of a shape on, if Python is its bottleneck.

    The first call of a shape runs as it is, for kernels are loaded and chosen then; the second is measured.

    Args:
        function: from tuples (named ones too) of tensors and of what can be a key, to such. It reads no number of a
            tensor, gives nothing that has a gradient, and what it changes besides, it changes in place, such as
            gradients that are there already.
    """

    def __init__(self, function: Callable[[Inputs], Outputs]) -> None:
        self._function = function
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all, as no two of them run at once

    def __call__(self, inputs: Inputs) -> Outputs:
        shapes = recursively_apply(lambda part: (part.shape, part.dtype), inputs)
        if (recording := self._recordings.get(shapes)) is not None:
            outputs: Outputs = recording.replay(inputs)
            return outputs
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self._calls[shapes] != 2:
            return self._function(inputs)
        outputs, share = self._measured(inputs)
        if share >= _LEAST_SHARE_OF_STARTING:
            self._recordings[shapes] = self._record(inputs)
        return outputs

    def _measured(self, inputs: Inputs) -> tuple[Outputs, float]:
        """The outputs, and which share of the time Python was busy with starting kernels."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        started = time.perf_counter()
        outputs = self._function(inputs)
        seconds = time.perf_counter() - started
        end.record()
        end.synchronize()
        return outputs, 1e3 * seconds / start.elapsed_time(end)

    def _record(self, inputs: Inputs) -> _Recording:
        """Records a call and makes none."""
        places = recursively_apply(torch.clone, inputs)
        graph = torch.cuda.CUDAGraph()
        # Autocast keeps its casts of weights. A graph must make its own, of the weights as they are then, and nobody
        # else may be given them.
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph, pool=self._memory, stream=recording_stream()):
            outputs = self._function(places)
        torch.clear_autocast_cache()
        return _Recording(graph, places, outputs)


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    places: Any  # where the graph reads its inputs
    outputs: Any

    def replay(self, inputs: Any) -> Any:
        for place, given in zip(_tensors(self.places), _tensors(inputs), strict=True):
            place.copy_(given)
        self.graph.replay()
        return recursively_apply(torch.clone, self.outputs)  # the next replay overwrites them


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    recursively_apply(found.append, tree)
    return found
