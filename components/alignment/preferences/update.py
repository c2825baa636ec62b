"""The optimiser steps of one iteration, on pairs of responses and the reference policy's logprobs of them."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.first_step import require_ratio_one
from components.alignment.preferences.first_step import require_no_margin
from components.config import Dpo, OnlineDpo
from components.core.calibration import pairwise_accuracy
from components.core.losses import dpo_loss
from components.passes.forward import response_logprobs
from components.passes.sequences import Sequences
from components.self_checks import Checks
from components.training.step import Contribution, OptimizerStep, packed_for

Statistics = dict[str, float]


class Updater:
    """Moves a policy, in place, iteration by iteration.

    Args:
        pairs, ref_logprobs: of all comparisons; see components.alignment.preferences.reference.
        ids: names of all comparisons, for errors.
        method: the name of the settings' section, for errors.
        old_logprobs: where the policy itself gave the responses, the logprobs that it gave them with, as `pairs` has
            them, (2N, T); None for responses of others.
        checks: told of what the first step found; None where it is not looked at.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: nn.Module,
        optimizer: torch.optim.Optimizer,
        pairs: Sequences,
        ref_logprobs: Tensor,
        ids: list[str],
        settings: Dpo | OnlineDpo,
        *,
        temperature: float,
        method: str,
        checks: Checks | None = None,
        old_logprobs: Tensor | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._policy = policy
        self._pairs = pairs
        self._ref_logprobs = ref_logprobs
        self._old_logprobs = old_logprobs
        self._settings = settings
        self._temperature = temperature
        self._method = method
        self._checks = checks
        self._response_tokens = pairs.response_mask.sum(dim=1)
        self._lengths = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)  # of a comparison's longer sequence
        self._take_step = OptimizerStep(
            accelerator,
            policy,
            optimizer,
            settings.gradient_clip,
            {"gradient_norm": policy},
            section=method,
            noun="comparisons",
            names=ids,
        )

    def update(self, rows: Tensor, iteration: int) -> Statistics:
        """One pass over the comparisons `rows`, a step for every `batch_size` of them.

        Returns:
            Means over the comparisons, each as its step found it: loss, accuracy (the implicit reward of the chosen
            response is above that of the rejected one; ties count half), margin (by how much; beta times nats),
            chosen_logprob and rejected_logprob (nats per response), and with old_logprobs approx_kl (old to new policy,
            0.5 * squared log-ratio, nats per token); the mean gradient_norm of the steps, and the number of steps and
            of trained_tokens (prompts and responses).
        Raises:
            TrainingError: a loss or gradient that is not finite; the comparisons are named. Or the policy does not
                begin as its reference, or with old_logprobs is not the one that gave the responses.
        """
        sums: dict[str, float] = {}
        # Of like size: a small rest would move the policy as far as all others.
        batches = torch.tensor_split(rows, -(-len(rows) // self._settings.batch_size))
        for number, batch in enumerate(batches):
            is_first = number == 0 and iteration == 0 and self._checks is not None and self._old_logprobs is None

            def contribution(part: Tensor, batch: Tensor = batch, is_first: bool = is_first) -> Contribution:
                return self._contribution(part, len(batch), is_first)

            step = self._take_step(
                batch,
                self._lengths,
                self._settings.microbatch_size,
                contribution,
                where=f"{self._method}, iteration {iteration + 1}",
                mean_over=len(batch),
            )
            precision = self._accelerator.mixed_precision
            if is_first and self._checks is not None:
                found = step.pop("reference_gap"), step["loss"]
                require_no_margin(self._checks, *found, self._settings, precision)
            if number == 0 and self._checks is not None and self._old_logprobs is not None:
                where = f"{self._method}, iteration {iteration + 1}, step 1"
                require_ratio_one(self._checks, where, step["approx_kl"], precision, iteration + 1)
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
        logprobs = response_logprobs(self._policy, sequences, self._temperature)
        chosen, rejected = logprobs.sum(dim=1).chunk(2)
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
        if self._old_logprobs is not None:
            log_ratios = logprobs.detach() - self._old_logprobs[of_both, : logprobs.shape[1]]
            squares, tokens = log_ratios.square().sum(dim=1), both.response_mask.sum(dim=1).to(log_ratios.device)
            measured["approx_kl"] = 0.5 * squares.reshape(2, -1).sum(dim=0) / tokens.reshape(2, -1).sum(dim=0)
        sums = {name: column.detach().sum() for name, column in measured.items()}
        largest = {}
        if is_first:
            gaps = torch.cat([chosen - ref_chosen, rejected - ref_rejected]).detach().abs()
            largest = {"reference_gap": (gaps / self._response_tokens[of_both].to(gaps.device)).max()}
        return Contribution(losses.sum() / batch_size, sums, losses.detach(), largest)
