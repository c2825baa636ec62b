"""The optimiser steps of one iteration: Q, value, CQL and AWAC losses in one objective."""

from __future__ import annotations

from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.q_learning.dataset import ScoredComparisons
from components.alignment.q_learning.model import QLearner, move_targets
from components.config import QLearning
from components.core.aggregation import aggregate
from components.core.calibration import pairwise_accuracy
from components.core.ilql import IlqlLosses, ilql_losses
from components.core.rewards import per_token_rewards
from components.core.stats import masked_sum
from components.models.guided import QHeads
from components.passes.sequences import Sequences
from components.training.step import Contribution, OptimizerStep

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
    inner: QLearner = accelerator.unwrap_model(model)
    take_step = OptimizerStep(
        accelerator,
        model,
        optimizer,
        settings.gradient_clip,
        {"gradient_norm": model},
        section="q_learning",
        noun="comparisons",
        names=data.ids,
    )
    lengths = data.sequences.mask.sum(dim=1).reshape(2, -1).amax(dim=0).cpu()  # of a comparison's longer sequence
    steps: list[Statistics] = []
    for batch in torch.split(torch.tensor(comparisons), settings.batch_size):
        tokens = float(data.sequences.response_mask[data.both(batch)].sum())

        def contribution(rows: Tensor, batch: Tensor = batch, tokens: float = tokens) -> Contribution:
            return _contribution(model, target_q_heads, data, rows, settings, tokens, len(batch))

        where = f"q_learning, iteration {iteration + 1}"
        steps.append(take_step(batch, lengths, settings.microbatch_size, contribution, where=where))
        move_targets(target_q_heads, inner.q_heads, settings.polyak_alpha)
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    trained_tokens = int(data.sequences.mask[data.both(torch.tensor(comparisons))].sum())
    return means | {"steps": len(steps), "trained_tokens": trained_tokens}


def _contribution(
    model: nn.Module,
    target_q_heads: QHeads,
    data: ScoredComparisons,
    comparisons: Tensor,
    settings: QLearning,
    tokens: float,
    batch_size: int,
) -> Contribution:
    """What some comparisons add to a step of `batch_size` comparisons with `tokens` response tokens."""
    rows = data.both(comparisons)
    sequences = data.sequences.rows(rows)
    mask = sequences.response_mask
    per_token, seen = _forward(model, target_q_heads, sequences, data.rewards[rows], settings)
    losses = {name: aggregate(term, mask, "token_mean", tokens) for name, term in per_token._asdict().items()}
    objective = losses["q_loss"] + losses["value_loss"]
    objective = objective + settings.cql_coef * losses["cql_loss"] + settings.awac_coef * losses["awac_loss"]
    chosen, rejected = masked_sum(seen.advantages, mask, dim=1).chunk(2)
    measured = {
        "loss": objective,
        **losses,
        "q": masked_sum(seen.q, mask) / tokens,
        "value": masked_sum(seen.values, mask) / tokens,
        "accuracy": pairwise_accuracy(chosen, rejected).sum() / batch_size,
    }
    of_comparisons = torch.stack([masked_sum(term.detach(), mask, dim=1) for term in per_token])
    return Contribution(
        objective,
        {name: figure.detach() for name, figure in measured.items()},
        of_comparisons.reshape(-1, len(comparisons)),  # of the chosen responses, then of the rejected ones
    )


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
