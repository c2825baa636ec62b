"""The optimiser steps of one iteration, on comparisons and the reference policy's logprobs of them."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.dpo.reference import sequence_logprobs
from components.config import Dpo
from components.core.calibration import pairwise_accuracy
from components.core.losses import dpo_loss
from components.errors import TrainingError
from components.passes.sequences import Packed, Sequences
from components.training.passes import Passes

Statistics = dict[str, float]
_NAMED = 8


class Outcome(NamedTuple):
    """What a microbatch of B comparisons adds to its step. Shapes: losses (B,), others ()."""

    losses: Tensor
    sums: dict[str, Tensor]


class Updater:
    """Moves a policy, in place, iteration by iteration.

    Args:
        pairs, ref_logprobs: of all comparisons; see components.alignment.dpo.reference.
        ids: names of all comparisons, for errors.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: nn.Module,
        optimizer: torch.optim.Optimizer,
        pairs: Sequences,
        ref_logprobs: Tensor,
        ids: list[str],
        settings: Dpo,
        *,
        temperature: float,
    ) -> None:
        self._accelerator, self._policy, self._optimizer = accelerator, policy, optimizer
        self._pairs, self._ref_logprobs, self._ids = pairs, ref_logprobs, ids
        self._settings, self._temperature = settings, temperature
        inner = accelerator.unwrap_model(policy)
        self._accumulate = Passes(accelerator, self._forward_and_backward, inner, backward=True)

    def update(self, rows: Tensor, iteration: int) -> Statistics:
        """One pass over the comparisons `rows`, a step for every `batch_size` of them.

        Returns:
            Means over the comparisons, each as its step found it: loss, accuracy (the implicit reward of the chosen
            response is above that of the rejected one; ties count half), margin (by how much; beta times nats),
            chosen_logprob and rejected_logprob (nats per response); the mean gradient_norm of the steps, and the number
            of steps and of trained_tokens (prompts and responses).
        Raises:
            TrainingError: a loss or gradient that is not finite; the comparisons are named.
        """
        sums: dict[str, float] = {}
        batches = torch.split(rows, self._settings.batch_size)
        for batch in batches:
            step = self._step(batch, where=f"dpo, iteration {iteration + 1}")
            for name, value in step.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch) / len(rows)
        trained_tokens = int(self._pairs.mask.sum(dim=1).reshape(2, -1).sum(dim=0)[rows].sum())
        return sums | {"steps": len(batches), "trained_tokens": trained_tokens}

    def _step(self, batch: Tensor, where: str) -> Statistics:
        """One optimiser step on the mean loss of the batch, however it is cut up and shared out."""
        accelerator, settings, pairs = self._accelerator, self._settings, self._pairs
        count = len(pairs) // 2
        share = batch[accelerator.process_index :: accelerator.num_processes]
        lengths = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)
        parts = torch.split(share[torch.argsort(lengths[share], stable=True)], settings.microbatch_size)
        batch_size = self._ref_logprobs.new_tensor(len(batch))
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            # Chosen and rejected go through in one pass: they share most of their padding.
            sequences = pairs.rows(torch.cat([part, part + count]), trim=self._accumulate.trim)
            inputs = self._accumulate.inputs(sequences.to(accelerator.device))
            with contextlib.nullcontext() if number == len(parts) else accelerator.no_sync(self._policy):
                outcome = self._accumulate((inputs, self._ref_logprobs[:, part], batch_size))
            finite = torch.isfinite(outcome.losses)
            if not finite.all():
                found = f"losses {outcome.losses.tolist()[:_NAMED]}"
                raise _not_finite(where, self._ids, part[~finite.cpu()], found)
            for name, column in outcome.sums.items():
                sums[name] = sums.get(name, torch.zeros_like(column)) + column
        norm = float(accelerator.clip_grad_norm_(self._policy.parameters(), settings.gradient_clip))
        if not math.isfinite(norm):
            raise _not_finite(where, self._ids, batch, f"norm of the gradient {norm}")
        self._optimizer.step()
        self._accumulate.zero_grad(self._optimizer)
        totals = (accelerator.reduce(torch.stack(list(sums.values())), reduction="sum") / len(batch)).tolist()
        return {**dict(zip(sums, totals, strict=True)), "gradient_norm": norm}

    def _forward_and_backward(self, inputs: tuple[Sequences | Packed, Tensor, Tensor]) -> Outcome:
        """Add the gradients of a microbatch's share of the mean loss."""
        (sequences, ref_logprobs, batch_size), settings = inputs, self._settings
        chosen, rejected = sequence_logprobs(self._policy, sequences, self._temperature).chunk(2)
        ref_chosen, ref_rejected = ref_logprobs
        losses = dpo_loss(
            chosen,
            rejected,
            ref_chosen,
            ref_rejected,
            beta=settings.beta,
            label_smoothing=settings.label_smoothing,
            form=settings.loss,
        )
        # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
        self._accelerator.backward(losses.sum() / batch_size * self._accelerator.num_processes)
        margins = settings.beta * ((chosen - rejected) - (ref_chosen - ref_rejected)).detach()
        measured = {
            "loss": losses,
            "accuracy": pairwise_accuracy(margins, torch.zeros_like(margins)),
            "margin": margins,
            "chosen_logprob": chosen,
            "rejected_logprob": rejected,
        }
        return Outcome(losses.detach(), {name: column.detach().sum() for name, column in measured.items()})


def _not_finite(where: str, ids: list[str], rows: Tensor, found: str) -> TrainingError:
    named = ", ".join(ids[row] for row in rows.tolist()[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return TrainingError(
        "the DPO loss or its gradient is not finite",
        where=f"{where}, comparisons {named}{more}",
        expected="numbers",
        found=found,
        do="the last finished iteration is kept; lower dpo.learning_rate, or look at these comparisons",
    )
