"""One optimiser step, the same for every method: shares of processes, microbatches, gradients, clipping, checks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.errors import TrainingError
from components.models.adapter_views import with_bases
from components.models.holding import recomputes
from components.passes.forward import prepared
from components.passes.sequences import Packed, Sequences
from components.training import zero

_NAMED = 8  # of the examples that an error is about


class Contribution(NamedTuple):
    """What a microbatch of B examples adds to its step.

    Shapes: objective, sums and largest () each; losses (..., B).

    Args:
        objective: the microbatch's share of what the step minimises; the shares of a step add up to it.
        sums: figures whose sum over microbatches and processes tells of the step, without gradients.
        losses: each example's own losses, to find those that are not finite; None where nobody keeps them apart.
        largest: figures whose largest one tells of the step, without gradients.
    """

    objective: Tensor
    sums: dict[str, Tensor]
    losses: Tensor | None = None
    largest: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class OptimizerStep:
    """Takes optimiser steps on a model.

    Args:
        model, optimizer: as Accelerate prepared them.
        gradient_clip: the largest norm of a gradient.
        clipped: the parts of the model whose gradients are clipped, each to a norm of its own, under the name that the
            norm has among a step's figures.
        section: the section of params that holds the learning rate, for errors.
        noun: what an example is called in errors, e.g. "rollouts".
        names: the examples' names for errors; None for their row numbers.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    gradient_clip: float
    clipped: Mapping[str, nn.Module]
    section: str
    noun: str
    names: Sequence[str] | None = None

    def __call__(
        self,
        batch: Tensor,
        lengths: Tensor,
        microbatch_size: int,
        contribution: Callable[[Tensor], Contribution],
        *,
        where: str,
        longest_first: bool = False,
        mean_over: int = 1,
    ) -> dict[str, float]:
        """One step on a batch, the same whatever the microbatch size and the number of processes.

        Args:
            batch: the row numbers of its examples, in every process the same ones.
            lengths: (N,) tokens of each of all examples: those of like length share a microbatch, so that little is
                padded.
            contribution: from a microbatch's row numbers to what it adds.
            where: the place for errors, e.g. "ppo, iteration 3".
            longest_first: whether the microbatch that takes most memory comes first.
            mean_over: what the sums of the step are divided by.
        Returns:
            The sums, the norms of `clipped` before they were clipped, and the largest figures.
        Raises:
            TrainingError: an objective or a gradient is not finite; the examples are named. No weight has moved.
        """
        with self._recomputing():
            return self._take(batch, lengths, microbatch_size, contribution, where, longest_first, mean_over)

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Within it models compute their activations again, if they are to: they do while they are said to train."""
        if not self._recomputes:
            yield
            return
        before = [(module, module.training) for module in self.model.modules()]
        self.model.train()
        try:
            yield
        finally:
            for module, was_training in before:
                module.training = was_training

    @cached_property
    def _recomputes(self) -> bool:
        return any(map(recomputes, with_bases(self.model)))

    def _take(
        self,
        batch: Tensor,
        lengths: Tensor,
        microbatch_size: int,
        contribution: Callable[[Tensor], Contribution],
        where: str,
        longest_first: bool,
        mean_over: int,
    ) -> dict[str, float]:
        accelerator = self.accelerator
        share = batch[accelerator.process_index :: accelerator.num_processes]
        order = torch.argsort(lengths[share], stable=True, descending=longest_first)
        microbatches = [part for part in torch.split(share[order.to(share.device)], microbatch_size) if len(part)]
        # Where processes wait for each other, one with a smaller share goes through an example that adds nothing.
        largest_share = -(-len(batch) // accelerator.num_processes)
        idle = -(-largest_share // microbatch_size) - len(microbatches)
        microbatches += [batch[:1]] * idle
        sums: dict[str, Tensor] = {}
        largest: dict[str, Tensor] = {}
        for number, rows in enumerate(microbatches, start=1):
            is_last, is_idle = (
                number == len(microbatches),
                number > len(microbatches) - idle,
            )  # only then do processes exchange their gradients
            with self._microbatch(is_last):
                added = _nothing_of(contribution(rows)) if is_idle else contribution(rows)
                self._require_finite_objective(added, rows, where)
                # Data parallelism averages gradients over the processes; each objective is a share of the whole.
                objective = added.objective * accelerator.num_processes
                self._engine.backward(objective) if self._engine is not None else accelerator.backward(objective)
            for name, figure in added.sums.items():
                sums[name] = sums.get(name, torch.zeros_like(figure)) + figure
            for name, figure in added.largest.items():
                largest[name] = torch.maximum(largest.get(name, figure), figure)
        norms = {name: self._clip(part) for name, part in self.clipped.items()}
        if not all(map(math.isfinite, norms.values())):
            found = ", ".join(f"norm of the gradient {norm}" for norm in norms.values())
            raise self._not_finite("a gradient", batch, where, found)
        if self._engine is not None:
            self._engine.step()
        else:
            self.optimizer.step()
            self.optimizer.zero_grad()
        totals = accelerator.reduce(torch.stack(list(sums.values())), reduction="sum") / mean_over
        peaks = {name: float(accelerator.gather(figure.reshape(1)).max()) for name, figure in largest.items()}
        return {**dict(zip(sums, totals.tolist(), strict=True)), **norms, **peaks}

    @property
    def _engine(self) -> Any:
        """DeepSpeed's, which has its own passes and steps; None without it."""
        return self.model if zero.zero_stage(self.accelerator) else None

    def _microbatch(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        if self._engine is not None:
            return zero.microbatch(self._engine, is_last=is_last)
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model)

    def _clip(self, part: nn.Module) -> float:
        if self._engine is not None:
            return zero.clip(part, self.gradient_clip)
        return float(self.accelerator.clip_grad_norm_(part.parameters(), self.gradient_clip))

    def _require_finite_objective(self, added: Contribution, rows: Tensor, where: str) -> None:
        if torch.isfinite(added.objective):
            return
        broken = rows[:0]
        if added.losses is not None:
            finite = torch.isfinite(added.losses).reshape(-1, len(rows)).all(dim=0)
            broken = rows[~finite.to(rows.device)]
        found = [f"{name} {float(figure)}" for name, figure in added.sums.items() if not torch.isfinite(figure)]
        # Finite losses can overflow together.
        raise self._not_finite("an objective", broken if len(broken) else rows, where, ", ".join(found))

    def _not_finite(self, what: str, rows: Tensor, where: str, found: str) -> TrainingError:
        named = [str(row) if self.names is None else self.names[row] for row in rows.tolist()]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return TrainingError(
            f"{what} is not finite",
            where=f"{where}, {self.noun} {', '.join(named[:_NAMED])}{more}",
            expected="numbers",
            found=found,
            do=f"what was finished before is kept; lower {self.section}.learning_rate, or look at these {self.noun}",
        )


def _nothing_of(added: Contribution) -> Contribution:
    """A contribution with weight 0: its gradients are waited for where processes exchange them."""
    sums = {name: torch.zeros_like(figure) for name, figure in added.sums.items()}
    return added._replace(objective=0.0 * added.objective, sums=sums)


def packed_for(accelerator: Accelerator, model: nn.Module, sequences: Sequences) -> Sequences | Packed:
    """A microbatch on the device, packed if the model, as Accelerate prepared it, takes that."""
    with accelerator.autocast():
        return prepared(sequences.to(accelerator.device), accelerator.unwrap_model(model))
