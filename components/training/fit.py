"""The training loop shared by the methods that learn from a fixed data set (SFT, reward model, judge)."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.config import Optimisation
from components.errors import DataError, TrainingError
from components.passes.sequences import Packed, Sequences
from components.training.passes import Passes

logger = logging.getLogger("proximal")
_PROGRESS_SECONDS = 5.0


def learning_rate_factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up from 0, then linear decay to 0 after the last step; step counts from 0."""
    warmup_steps = math.ceil(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    sequences_of: Callable[[Tensor, bool], Sequences],
    loss_sum: Callable[[nn.Module, Sequences | Packed], Tensor],
    weights: Tensor,
    lengths: Tensor,
    settings: Optimisation,
    generator: torch.Generator,
    on_step: Callable[[int, float], None],
    label: str,
) -> list[float]:
    """Train `model` in place.

    Every optimiser step minimises sum(loss) / sum(weight) over the whole batch, whatever the microbatch size and the
    number of processes.

    Args:
        sequences_of: those of the examples with the given row numbers (a 1-D tensor), trimmed or not; see
            `Sequences.rows`.
        loss_sum: the summed loss of the examples with these sequences.
        weights: (N,) each example's share of the mean: its response tokens for SFT, 1 for a comparison.
        lengths: (N,) tokens of each example; those of like length share a microbatch, so that little is padded.
        on_step: called with the step's number and loss.
    Returns:
        The loss of every step.
    Raises:
        DataError: fewer examples than one batch.
        TrainingError: a loss or gradient that is not finite; the examples are named.
    """
    count = len(weights)
    steps_per_epoch = count // settings.batch_size
    if steps_per_epoch == 0:
        raise DataError(
            "too few examples for one batch",
            where=f"{label}.batch_size",
            expected=f"at least {settings.batch_size} examples",
            found=str(count),
            do=f"lower {label}.batch_size or add data",
        )
    total_steps = settings.epochs * steps_per_epoch
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    prepared.train()

    def forward_and_backward(inputs: tuple[Sequences | Packed, Tensor]) -> Tensor:
        loss = loss_sum(prepared, inputs[0]) / inputs[1]
        # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
        accelerator.backward(loss * accelerator.num_processes)
        return loss.detach()

    accumulate = Passes(accelerator, forward_and_backward, model, backward=True)
    losses: list[float] = []
    started = reported = time.monotonic()
    for epoch in range(settings.epochs):
        order = torch.randperm(count, generator=generator)
        for batch in torch.split(order[: steps_per_epoch * settings.batch_size], settings.batch_size):
            step = len(losses)
            factor = learning_rate_factor(step, total_steps, settings.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            loss, broken = _backward(accelerator, prepared, accumulate, sequences_of, weights, lengths, batch, settings)
            norm = float(accelerator.clip_grad_norm_(prepared.parameters(), settings.gradient_clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    "the loss or its gradient is not finite",
                    where=f"{label}, epoch {epoch + 1}, step {step + 1}",
                    expected="numbers",
                    found=f"loss {loss}, norm of the gradient {norm}" + (f", examples {broken}" if broken else ""),
                    do=f"lower {label}.learning_rate, or look at these examples",
                )
            optimizer.step()
            accumulate.zero_grad(optimizer)
            losses.append(loss)
            on_step(step, loss)
            if accelerator.is_main_process and time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                rate = len(losses) / (reported - started)
                logger.info(
                    "%s: step %d of %d, loss %.4f, %.0f s to go",
                    *(label, len(losses), total_steps, loss, (total_steps - len(losses)) / rate),
                )
    model.eval()
    return losses


def _backward(
    accelerator: Accelerator,
    model: nn.Module,
    accumulate: Passes[tuple[Sequences | Packed, Tensor], Tensor],
    sequences_of: Callable[[Tensor, bool], Sequences],
    weights: Tensor,
    lengths: Tensor,
    batch: Tensor,
    settings: Optimisation,
) -> tuple[float, list[int]]:
    """Accumulate the gradients of one batch.

    Returns:
        Its loss over all processes, and the examples of this process's first microbatch whose loss is not finite.
    """
    share = batch[accelerator.process_index :: accelerator.num_processes]
    parts = torch.split(share[torch.argsort(lengths[share], stable=True)], settings.microbatch_size)
    weight = weights[batch].sum().to(accelerator.device)
    total = torch.zeros((), device=accelerator.device)
    broken: list[int] = []
    for number, part in enumerate(parts, start=1):
        sequences = sequences_of(part, accumulate.trim).to(accelerator.device)
        with contextlib.nullcontext() if number == len(parts) else accelerator.no_sync(model):
            loss = accumulate((accumulate.inputs(sequences), weight))
        total += loss
        if not broken and not torch.isfinite(loss):
            broken = part.tolist()
    return float(accelerator.reduce(total, reduction="sum")), broken
