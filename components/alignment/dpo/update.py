"""The optimiser steps of one iteration, on comparisons and the reference policy's logprobs of them."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.dpo.first_step import require_no_margin
from components.alignment.dpo.reference import sequence_logprobs
from components.config import Dpo
from components.core.calibration import pairwise_accuracy
from components.core.losses import dpo_loss
from components.passes.sequences import Sequences
from components.self_checks import Checks
from components.training.step import Contribution, OptimizerStep, packed_for

Statistics = dict[str, float]


class Updater:
    """Moves a policy, in place, iteration by iteration.

    Args:
        pairs, ref_logprobs: of all comparisons; see components.alignment.dpo.reference.
        ids: names of all comparisons, for errors.
        checks: told of what the very first step found; None where the policy does not begin as its reference.
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
        checks: Checks | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._policy = policy
        self._pairs = pairs
        self._ref_logprobs = ref_logprobs
        self._settings = settings
        self._temperature = temperature
        self._checks = checks
        self._response_tokens = pairs.response_mask.sum(dim=1)
        self._lengths = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)  # of a comparison's longer sequence
        self._take_step = OptimizerStep(
            accelerator,
            policy,
            optimizer,
            settings.gradient_clip,
            {"gradient_norm": policy},
            section="dpo",
            noun="comparisons",
            names=ids,
        )

    def update(self, rows: Tensor, iteration: int) -> Statistics:
        """One pass over the comparisons `rows`, a step for every `batch_size` of them.

        Returns:
            Means over the comparisons, each as its step found it: loss, accuracy (the implicit reward of the chosen
            response is above that of the rejected one; ties count half), margin (by how much; beta times nats),
            chosen_logprob and rejected_logprob (nats per response); the mean gradient_norm of the steps, and the number
            of steps and of trained_tokens (prompts and responses).
        Raises:
            TrainingError: a loss or gradient that is not finite; the comparisons are named. Or the policy does not
                begin as its reference.
        """
        sums: dict[str, float] = {}
        batches = torch.split(rows, self._settings.batch_size)
        for number, batch in enumerate(batches):
            is_first = self._checks is not None and iteration == 0 and number == 0

            def contribution(part: Tensor, batch: Tensor = batch, is_first: bool = is_first) -> Contribution:
                return self._contribution(part, len(batch), is_first)

            step = self._take_step(
                batch,
                self._lengths,
                self._settings.microbatch_size,
                contribution,
                where=f"dpo, iteration {iteration + 1}",
                mean_over=len(batch),
            )
            if is_first and self._checks is not None:
                found = step.pop("reference_gap"), step["loss"]
                require_no_margin(self._checks, *found, self._settings, self._accelerator.mixed_precision)
            for name, value in step.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch) / len(rows)
        trained_tokens = int(self._pairs.mask.sum(dim=1).reshape(2, -1).sum(dim=0)[rows].sum())
        return sums | {"steps": len(batches), "trained_tokens": trained_tokens}

    def _contribution(self, rows: Tensor, batch_size: int, is_first: bool) -> Contribution:
        """What some comparisons add to the mean loss of a batch; in the very first one, also how far off it begins."""
        settings = self._settings
        # Chosen and rejected go through in one pass: they share most of their padding.
        of_both = torch.cat([rows, rows + len(self._pairs) // 2])
        both = self._pairs.rows(of_both)
        sequences = packed_for(self._accelerator, self._policy, both)
        chosen, rejected = sequence_logprobs(self._policy, sequences, self._temperature).chunk(2)
        ref_chosen, ref_rejected = self._ref_logprobs[:, rows]
        losses = dpo_loss(
            chosen,
            rejected,
            ref_chosen,
            ref_rejected,
            beta=settings.beta,
            label_smoothing=settings.label_smoothing,
            form=settings.loss,
        )
        margins = settings.beta * ((chosen - rejected) - (ref_chosen - ref_rejected)).detach()
        measured = {
            "loss": losses,
            "accuracy": pairwise_accuracy(margins, torch.zeros_like(margins)),
            "margin": margins,
            "chosen_logprob": chosen,
            "rejected_logprob": rejected,
        }
        sums = {name: column.detach().sum() for name, column in measured.items()}
        largest = {}
        if is_first:
            gaps = torch.cat([chosen - ref_chosen, rejected - ref_rejected]).detach().abs()
            largest = {"reference_gap": (gaps / self._response_tokens[of_both].to(gaps.device)).max()}
        return Contribution(losses.sum() / batch_size, sums, losses.detach(), largest)
