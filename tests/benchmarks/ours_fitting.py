"""What our side fits to given responses: SFT and the reward model by `fit`, DPO by its Updater."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, cast

import torch
import workload
from torch import Tensor, nn

from components.alignment.dpo.learner import parameter_groups as dpo_groups
from components.alignment.preferences.reference import reference_logprobs
from components.alignment.preferences.update import Updater as DpoUpdater
from components.config import Dpo, Optimisation, load_params
from components.core.losses import bradley_terry_loss
from components.models.loading import load_policy, load_scalar_model
from components.passes.forward import response_logprobs, sequence_scores
from components.passes.sequences import Packed, Sequences, build_sequences
from components.training.accelerator import start_accelerator
from components.training.fit import Examples, fit
from components.training.schedule import make_optimizer

ROOT = Path(__file__).resolve().parents[2]


def preferences(options: workload.Options) -> Sequences:
    """The chosen responses to all prompts, then the rejected ones."""
    prompts, chosen, rejected = workload.preferences(options.size)
    return build_sequences(prompts + prompts, chosen + rejected, workload.PAD_ID)


def fitting(options: workload.Options) -> dict[str, Any]:
    """Tokens a second of `fit` with the loss of SFT or of the reward model."""
    clock = workload.CLOCKS[options.clock]
    accelerator = start_accelerator()
    both = preferences(options)
    count, lengths = len(both) // 2, both.mask.sum(dim=1)
    if options.work == "sft":
        model: Any = load_policy(options.folder / "policy")
        weights, per_example = both.response_mask[:count].sum(dim=1).float(), lengths[:count]

        def sequences_of(index: Tensor) -> Sequences:
            return both.rows(index)

        def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
            return -response_logprobs(model, part, 1.0).sum()

    else:
        model = load_scalar_model(options.folder / "scalar")
        weights, per_example = torch.ones(count), lengths[:count] + lengths[count:]

        def sequences_of(index: Tensor) -> Sequences:
            return both.rows(torch.cat([index, index + count]))

        def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
            chosen, rejected = sequence_scores(model, part).chunk(2)
            return bradley_terry_loss(chosen, rejected).sum()

    settings = Optimisation(
        learning_rate=workload.LEARNING_RATE,
        weight_decay=0.01,
        gradient_clip=1.0,
        warmup_fraction=0.0,
        epochs=1,
        batch_size=workload.FIT_BATCH,
        microbatch_size=workload.MICROBATCH,
    )
    times = [clock()]
    fit(
        accelerator,
        model.to(accelerator.device),
        Examples(sequences_of, weights, lengths[:count]),
        loss_sum,
        settings,
        torch.Generator().manual_seed(1),
        lambda step, loss: times.append(clock()),
        options.work,
    )
    return tokens_per_second(times, per_example)


def dpo(options: workload.Options) -> dict[str, Any]:
    """Tokens a second of DPO's steps, and of the reference's logprobs, computed once for all of them."""
    clock = workload.CLOCKS[options.clock]
    accelerator = start_accelerator()
    pairs = preferences(options)
    count, lengths = len(pairs) // 2, pairs.mask.sum(dim=1)
    changes = {"batch_size": workload.FIT_BATCH, "microbatch_size": workload.MICROBATCH, "gradient_clip": 1.0}
    settings = cast(Dpo, load_params(ROOT / "params.yaml").dpo).model_copy(update=changes)
    policy, reference = (load_policy(options.folder / "policy").to(accelerator.device) for _ in range(2))
    groups = dpo_groups(policy, settings.model_copy(update={"learning_rate": workload.LEARNING_RATE}))
    optimizer: Any = make_optimizer(groups, settings.weight_decay)
    prepared, optimizer = accelerator.prepare(policy, optimizer)
    started = clock()
    ref_logprobs = reference_logprobs(
        accelerator, reference, pairs, [list(range(count))], temperature=1.0, microbatch_size=workload.MICROBATCH
    )
    share = (clock() - started) / (count // workload.FIT_BATCH)
    ids = [str(row) for row in range(count)]
    updater = DpoUpdater(accelerator, prepared, optimizer, pairs, ref_logprobs, ids, settings, temperature=1.0)
    times = [clock()]
    for number, rows in enumerate(torch.split(torch.arange(count), workload.FIT_BATCH), start=1):
        updater.update(rows, number)
        times.append(clock() + number * share)
    return tokens_per_second(times, lengths[:count] + lengths[count:])


def tokens_per_second(times: list[float], tokens: Tensor) -> dict[str, float]:
    """From when each step ended, the first ones warming up, and the tokens of each example."""
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    return {"tokens_per_s": float(tokens.float().mean()) * workload.FIT_BATCH / statistics.median(steps[2:])}
