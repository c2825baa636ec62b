"""Passes of models over microbatches: what goes in, and whether they are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import torch
from accelerate import Accelerator
from torch import nn

from components.engines.cuda_graphs import Inputs, Outputs, Recorded
from components.passes.attention import takes_packed_sequences
from components.passes.forward import prepared
from components.passes.sequences import Packed, Sequences


class Passes(Generic[Inputs, Outputs]):
    """A function that passes microbatches through models: replayed as CUDA graphs where that can be, else as it is.

    It can be where attention to all sequences of a batch is one kernel, whatever their lengths: on a GPU, in bfloat16.
    Processes that train together talk to each other in a backward pass, which a graph has no part in.

    Args:
        function: as `Recorded` wants it.
        models: what microbatches pass through.
        backward: whether it adds to their gradients.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        function: Callable[[Inputs], Outputs],
        *models: nn.Module,
        backward: bool,
    ) -> None:
        one_kernel = accelerator.device.type == "cuda" and accelerator.mixed_precision == "bf16"
        alone = accelerator.num_processes == 1 or not backward
        self._recorded = one_kernel and alone and all(takes_packed_sequences(model) for model in models)
        self._accelerator, self._models = accelerator, models
        self._function: Callable[[Inputs], Outputs] = Recorded(function) if self._recorded else function

    def __call__(self, inputs: Inputs) -> Outputs:
        return self._function(inputs)

    @property
    def trim(self) -> bool:
        """Whether microbatches should lack the padding that only others need: not where shapes are to be equal."""
        return not self._recorded

    def inputs(self, sequences: Sequences) -> Sequences | Packed:
        """A microbatch as the models take it."""
        with self._accelerator.autocast():
            return prepared(sequences, *self._models, any_lengths=self._recorded)

    def zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """A graph adds to the gradients that it knows, so that they must stay in their places."""
        optimizer.zero_grad(set_to_none=not self._recorded)
