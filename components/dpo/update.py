"""The optimiser steps of one iteration, on comparisons and the reference policy's logprobs of them."""

from __future__ import annotations

import contextlib
import math

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.config import Dpo
from components.core.losses import dpo_loss
from components.dpo.reference import sequence_logprobs
from components.errors import TrainingError
from components.language_model.sequences import Sequences
from components.profile import span

Statistics = dict[str, float]
_NAMED = 8


@span("updates")
def update(
    accelerator: Accelerator,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    pairs: Sequences,
    ref_logprobs: Tensor,
    rows: Tensor,
    ids: list[str],
    settings: Dpo,
    *,
    temperature: float,
    iteration: int,
) -> Statistics:
    """One pass over the comparisons `rows`, a step for every `batch_size` of them; the policy changes in place.

    Args:
        pairs, ref_logprobs: of all comparisons; see components.dpo.reference.
        ids: names of all comparisons, for errors.
    Returns:
        Means over the comparisons, each as its step found it: loss, accuracy (the implicit reward of the chosen
        response is above that of the rejected one), margin (by how much; beta times nats), chosen_logprob and
        rejected_logprob (nats per response); the mean gradient_norm of the steps, and the number of steps and of
        trained_tokens (prompts and responses).
    Raises:
        TrainingError: a loss or gradient that is not finite; the comparisons are named.
    """
    sums: dict[str, float] = {}
    batches = torch.split(rows, settings.batch_size)
    for batch in batches:
        where = f"dpo, iteration {iteration + 1}"
        step = _step(accelerator, policy, optimizer, pairs, ref_logprobs, batch, ids, settings, temperature, where)
        for name, value in step.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch) / len(rows)
    trained_tokens = int(pairs.mask.sum(dim=1).reshape(2, -1).sum(dim=0)[rows].sum())
    return sums | {"steps": len(batches), "trained_tokens": trained_tokens}


def _step(
    accelerator: Accelerator,
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    pairs: Sequences,
    ref_logprobs: Tensor,
    batch: Tensor,
    ids: list[str],
    settings: Dpo,
    temperature: float,
    where: str,
) -> Statistics:
    """One optimiser step on the mean loss of the batch, however it is cut up and shared out."""
    count = len(pairs) // 2
    share = batch[accelerator.process_index :: accelerator.num_processes]
    lengths = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)
    parts = torch.split(share[torch.argsort(lengths[share], stable=True)], settings.microbatch_size)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with contextlib.nullcontext() if last else accelerator.no_sync(policy):
            # Chosen and rejected go through in one pass: they share most of their padding.
            sequences = pairs.rows(torch.cat([part, part + count])).to(accelerator.device)
            chosen, rejected = sequence_logprobs(policy, sequences, temperature).chunk(2)
            ref_chosen, ref_rejected = ref_logprobs[:, part]
            losses = dpo_loss(
                chosen,
                rejected,
                ref_chosen,
                ref_rejected,
                beta=settings.beta,
                label_smoothing=settings.label_smoothing,
                form=settings.loss,
            )
            if not torch.isfinite(losses).all():
                broken = part[~torch.isfinite(losses).cpu()]
                raise _not_finite(where, ids, broken, f"losses {losses.detach().tolist()[:_NAMED]}")
            # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
            accelerator.backward(losses.sum() / len(batch) * accelerator.num_processes)
        margins = settings.beta * ((chosen - rejected) - (ref_chosen - ref_rejected)).detach()
        measured = {
            "loss": losses,
            "accuracy": (margins > 0).float(),
            "margin": margins,
            "chosen_logprob": chosen,
            "rejected_logprob": rejected,
        }
        for name, column in measured.items():
            sums[name] = sums.get(name, torch.zeros((), device=column.device)) + column.detach().sum()
    norm = float(accelerator.clip_grad_norm_(policy.parameters(), settings.gradient_clip))
    if not math.isfinite(norm):
        raise _not_finite(where, ids, batch, f"norm of the gradient {norm}")
    optimizer.step()
    optimizer.zero_grad()
    totals = (accelerator.reduce(torch.stack(list(sums.values())), reduction="sum") / len(batch)).tolist()
    return {**dict(zip(sums, totals, strict=True)), "gradient_norm": norm}


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
