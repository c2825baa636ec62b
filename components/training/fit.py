"""The training loop shared by the methods that learn from a fixed data set (SFT, reward model, judge)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.config import Optimisation
from components.errors import DataError
from components.passes.sequences import Packed, Sequences
from components.training.resumable import Resumable
from components.training.schedule import ParameterGroup, make_optimizer, make_schedule, warmup_and_decay
from components.training.step import Contribution, OptimizerStep, packed_for
from components.training.zero import prepare

logger = logging.getLogger("proximal")
_PROGRESS_SECONDS = 5.0


class Examples(NamedTuple):
    """N examples to learn from.

    Shapes: weights and lengths (N,).

    Args:
        sequences_of: the sequences of the examples with the given row numbers (a 1-D tensor).
        weights: each example's share of the mean: its response tokens for SFT, 1 for a comparison.
        lengths: tokens of each example.
    """

    sequences_of: Callable[[Tensor], Sequences]
    weights: Tensor
    lengths: Tensor


class Fitted(NamedTuple):
    """What a fit came to: the loss of every step, and the seconds that these took, before an interruption too."""

    losses: list[float]
    seconds: float


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    examples: Examples,
    loss_sum: Callable[[nn.Module, Sequences | Packed], Tensor],
    settings: Optimisation,
    generator: torch.Generator,
    on_step: Callable[[int, float], None],
    label: str,
    resumable: Resumable | None = None,
) -> Fitted:
    """Train `model` in place.

    Every optimiser step minimises sum(loss) / sum(weight) over the whole batch, whatever the microbatch size and the
    number of processes.

    Args:
        loss_sum: the summed loss of the examples with these sequences.
        on_step: called with the step's number and loss.
        label: the section of params, for errors and progress.
        resumable: where checkpoints go, and the one that it goes on from; None: it cannot be interrupted. `on_step` is
            told of the steps before, too.
    Raises:
        DataError: fewer examples than one batch.
        TrainingError: a loss or gradient that is not finite; the examples are named.
    """
    count = len(examples.weights)
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
    factor = warmup_and_decay(total_steps, settings.warmup_fraction)
    stored = resumable.load(model) if resumable else None
    groups = {"model": ParameterGroup(model.parameters(), settings.learning_rate, factor)}
    prepared, optimizer = prepare(accelerator, model, make_optimizer(groups, settings.weight_decay))
    if resumable and stored:
        resumable.load_optimizer(model, optimizer, stored)
    losses, seconds_before = (list(stored.losses), stored.seconds) if stored else ([], 0.0)
    for step, loss in enumerate(losses):
        on_step(step, loss)
    done = len(losses)
    schedule = make_schedule(optimizer, groups, done)
    take_step = OptimizerStep(
        accelerator, prepared, optimizer, settings.gradient_clip, {"gradient_norm": prepared}, label, "examples"
    )
    prepared.train()
    started = reported = time.monotonic()
    for epoch in range(settings.epochs):
        order = torch.randperm(count, generator=generator)
        batches = torch.split(order[: steps_per_epoch * settings.batch_size], settings.batch_size)
        for batch in batches[max(0, done - epoch * steps_per_epoch) :]:
            weight = examples.weights[batch].sum().to(accelerator.device)

            def contribution(rows: Tensor, weight: Tensor = weight) -> Contribution:
                sequences = packed_for(accelerator, prepared, examples.sequences_of(rows))
                loss = loss_sum(prepared, sequences) / weight
                return Contribution(loss, {"loss": loss.detach()})

            step = len(losses)
            where = f"{label}, epoch {epoch + 1}, step {step + 1}"
            figures = take_step(batch, examples.lengths, settings.microbatch_size, contribution, where=where)
            schedule.step()
            losses.append(figures["loss"])
            on_step(step, losses[-1])
            if accelerator.is_main_process and time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                rate = (len(losses) - done) / (reported - started)
                logger.info(
                    "%s: step %d of %d, loss %.4f, %.0f s to go",
                    *(label, len(losses), total_steps, losses[-1], (total_steps - len(losses)) / rate),
                )
            if resumable and resumable.is_due(len(losses), total_steps):
                resumable.store(model, optimizer, losses, seconds_before + time.monotonic() - started)
    model.eval()
    return Fitted(losses, seconds_before + time.monotonic() - started)
