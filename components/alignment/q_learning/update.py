"""The optimiser steps of one iteration: Q, value, CQL and AWAC losses in one objective."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.q_learning.dataset import ScoredComparisons
from components.alignment.q_learning.model import QLearner, move_targets
from components.config import QLearning
from components.core.calibration import pairwise_accuracy
from components.core.ilql import IlqlLosses, ilql_losses
from components.core.losses import aggregate
from components.core.rewards import per_token_rewards
from components.core.stats import masked_sum
from components.errors import TrainingError
from components.models.guided import QHeads
from components.passes.sequences import Sequences

Statistics = dict[str, float]


def update(
    accelerator: Accelerator,
    model: nn.Module,
    target_q_heads: QHeads,
    optimizer: torch.optim.Optimizer,
    data: ScoredComparisons,
    comparisons: list[int],
    settings: QLearning,
    iteration: int,
) -> Statistics:
    """One pass over the comparisons in steps of batch_size; model and target heads change in place.

    Args:
        model: a `QLearner`, perhaps prepared by Accelerate.
    Returns:
        Means over all steps, each as its step found the model: loss, q_loss, value_loss, cql_loss, awac_loss;
        q (both heads, of the tokens in the data) and value; accuracy, the share of comparisons whose chosen response
        has the larger sum of min target Q - V over its tokens, which is what decoding adds to its logprob per
        decode_beta; gradient_norm. And the number of steps and of trained_tokens (prompts and responses).
    Raises:
        TrainingError: a loss or gradient that is not finite; the comparisons are named.
    """
    steps = [
        _step(accelerator, model, target_q_heads, optimizer, data, batch, settings, iteration)
        for batch in torch.split(torch.tensor(comparisons), settings.batch_size)
    ]
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    trained_tokens = int(data.sequences.mask[data.both(torch.tensor(comparisons))].sum())
    return means | {"steps": len(steps), "trained_tokens": trained_tokens}


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    target_q_heads: QHeads,
    optimizer: torch.optim.Optimizer,
    data: ScoredComparisons,
    batch: Tensor,
    settings: QLearning,
    iteration: int,
) -> Statistics:
    """One optimiser step. Losses are means over all response tokens of the batch, however it is cut up."""
    tokens = float(data.sequences.response_mask[data.both(batch)].sum())
    share = batch[accelerator.process_index :: accelerator.num_processes]
    lengths = data.sequences.mask[data.both(share)].sum(dim=1).reshape(2, -1).amax(dim=0)
    parts = torch.split(share[torch.argsort(lengths.cpu(), stable=True)], settings.microbatch_size)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        rows = data.both(part)
        sequences = data.sequences.rows(rows)
        mask = sequences.response_mask
        last = number == len(parts)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            per_token, seen = _forward(model, target_q_heads, sequences, data.rewards[rows], settings)
            losses = {name: aggregate(term, mask, "token_mean", tokens) for name, term in per_token._asdict().items()}
            objective = losses["q_loss"] + losses["value_loss"]
            objective = objective + settings.cql_coef * losses["cql_loss"] + settings.awac_coef * losses["awac_loss"]
            if not torch.isfinite(objective):
                raise TrainingError(
                    "the objective of Q-learning is not finite",
                    where=f"q_learning, iteration {iteration + 1}, comparisons {_broken(per_token, part, data.ids)}",
                    expected="a number",
                    found=", ".join(f"{name} {float(loss)}" for name, loss in losses.items()),
                    do="the last finished iteration is kept; lower the learning rates of q_learning and run again",
                )
            # Data parallelism averages gradients over the processes; the loss is already a share of the whole mean.
            accelerator.backward(objective * accelerator.num_processes)
        chosen, rejected = masked_sum(seen.advantages, mask, dim=1).chunk(2)
        measured = {
            "loss": objective,
            **losses,
            "q": masked_sum(seen.q, mask) / tokens,
            "value": masked_sum(seen.values, mask) / tokens,
            "accuracy": pairwise_accuracy(chosen, rejected).sum() / len(batch),
        }
        for name, term in measured.items():
            sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip))
    if not math.isfinite(norm):
        raise TrainingError(
            "the gradient of Q-learning is not finite",
            where=f"q_learning, iteration {iteration + 1}, comparisons {_shown([data.ids[row] for row in batch])}",
            expected="a number",
            found=str(norm),
            do="the last finished iteration is kept; lower the learning rates of q_learning and run again",
        )
    optimizer.step()
    optimizer.zero_grad()
    inner: QLearner = accelerator.unwrap_model(model)
    move_targets(target_q_heads, inner.q_heads, settings.polyak_alpha)
    totals = accelerator.reduce(torch.stack(list(sums.values())), reduction="sum").tolist()
    return {**dict(zip(sums, totals, strict=True)), "gradient_norm": norm}


class _Seen(NamedTuple):
    """What the heads say of the tokens in the data, each (B, T): mean of the Q heads, V, and min target Q - V."""

    q: Tensor
    values: Tensor
    advantages: Tensor


def _forward(
    model: nn.Module, target_q_heads: QHeads, sequences: Sequences, rewards: Tensor, settings: QLearning
) -> tuple[IlqlLosses, _Seen]:
    """The losses of some sequences, per token; the reward of a response lies on its last token."""
    tokens, mask = sequences.response_tokens, sequences.response_mask
    output = model(sequences)
    with torch.no_grad():
        targets = target_q_heads(output.hidden)
    losses = ilql_losses(
        output.logits,
        output.q_heads,
        targets,
        output.values,
        tokens,
        per_token_rewards(rewards, torch.zeros_like(output.values), 0.0, mask),
        mask,
        gamma=settings.gamma,
        tau=settings.tau,
        beta=settings.awac_beta,
    )

    def of_tokens(head: Tensor) -> Tensor:
        return head.detach().gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    q = torch.stack([of_tokens(head) for head in output.q_heads]).mean(dim=0)
    values = output.values.detach()
    return losses, _Seen(q, values, torch.stack([of_tokens(head) for head in targets]).amin(dim=0) - values)


def _broken(per_token: IlqlLosses, part: Tensor, ids: list[str]) -> str:
    """The comparisons of a microbatch whose losses are not finite; all of them where finite ones overflow together."""
    finite = torch.stack([torch.isfinite(term).all(dim=1) for term in per_token]).all(dim=0).cpu()
    finite = finite.reshape(2, -1).all(dim=0)  # of both responses
    return _shown([ids[row] for row in (part[~finite] if not finite.all() else part)])


def _shown(ids: list[str]) -> str:
    return ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
