"""The reward model: comparisons become a scorer. The judge is the same code on other rows, with another seed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.artifacts import atomic_folder, write_json
from components.config import RewardModel, Shared
from components.core.losses import bradley_terry_loss
from components.data.rows import Comparison, Prompt, read_rows
from components.measuring.weak_scorers import weakness
from components.models.cuts import cut_fractions_of_pairs, distinct_pairs
from components.models.ensemble import Ensemble
from components.models.loading import (
    ScalarModel,
    load_codec,
    new_scalar_model,
    save_scorer,
)
from components.models.text import Codec
from components.passes.forward import sequence_scores
from components.passes.sequences import Packed, Sequences, comparison_pairs
from components.reward_model.normalisation import normalise_members
from components.reward_model.quality import quality
from components.seeding import derive_seed, generator
from components.tracking import StageRun
from components.training.accelerator import frame_of, start_accelerator, whole
from components.training.fit import Examples, fit

logger = logging.getLogger("proximal")


class Inputs(NamedTuple):
    """What a scorer reads; `policy` is the SFT policy, whose trunk it begins with."""

    policy: Path
    comparisons: Path
    heldout: Path
    heldout_pairs: Path
    prompts: Path


def run(settings: RewardModel, shared: Shared, inputs: Inputs, out: Path, tracked: StageRun, *, label: str) -> None:
    """Train one scorer and write it, its quality and its calibration to `out`.

    It may have several members, which see the same rows and differ in the seed of their heads and of the order.

    Args:
        label: "reward_model" or "judge", which names its random numbers and its figures.
    """
    rows, heldout_rows, heldout_pairs = (
        read_rows(path, Comparison) for path in (inputs.comparisons, inputs.heldout, inputs.heldout_pairs)
    )
    accelerator = start_accelerator()
    codec = load_codec(inputs.policy)
    seed = shared.seed + settings.seed_offset
    # Beside the label, a further member's number names its random numbers: a first member is a scorer of its own.
    own_names: list[tuple[int, ...]] = [(), *((number,) for number in range(2, settings.members + 1))]
    heads = [derive_seed(seed, label, "head", *own) for own in own_names]
    members = [new_scalar_model(inputs.policy, head, shared.language_model) for head in heads]
    cut = cut_fractions_of_pairs(codec, label, rows)
    read = len(rows)
    rows = distinct_pairs(rows, codec, str(inputs.comparisons))
    pairs = comparison_pairs(rows, codec)

    def chosen_and_rejected(index: Tensor) -> Sequences:
        # They go through in one pass: they share most of their padding.
        return pairs.rows(torch.cat([index, index + len(rows)]))

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        chosen, rejected = sequence_scores(model, part).chunk(2)
        return bradley_terry_loss(chosen, rejected).sum()

    longer_of_both = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)
    examples = Examples(chosen_and_rejected, weights=torch.ones(len(rows)), lengths=longer_of_both)
    tracked.dataset("comparisons", inputs.comparisons)
    last_epochs: list[float] = []
    for place, (own, member) in enumerate(zip(own_names, members, strict=True)):
        suffix = "".join(f"_{number}" for number in own)

        def report(step: int, loss: float, name: str = f"train/loss{suffix}") -> None:
            tracked.metrics({name: loss}, step=step)

        frame = frame_of(accelerator, member)
        losses = fit(
            accelerator,
            member,
            examples,
            loss_sum,
            settings=settings,
            generator=generator(seed, label, *own),
            on_step=report,
            label=label,
        )
        members[place] = whole(accelerator, member, frame)
        last_epochs += losses[-(len(losses) // settings.epochs) :]
    if accelerator.is_main_process:
        prompts = read_rows(inputs.prompts, Prompt)
        normalise = partial(normalise_members, members, inputs.policy, prompts, codec, settings, shared, label)
        measured, calibration = _measure_and_normalise(members, heldout_rows, heldout_pairs, codec, settings, normalise)
        if weak := weakness(label.replace("_", " "), measured):
            logger.warning("%s: what it scores is not to be trusted", weak)
        metrics = {"comparisons": len(rows), "loss": sum(last_epochs) / len(last_epochs), **measured}
        metrics |= {**cut, "comparisons_cut_alike": read - len(rows)}
        with atomic_folder(out) as folder:
            save_scorer(members, settings.ensemble, settings.ensemble_std_coef, folder / "model")
            write_json(folder / "metrics.json", metrics)
            write_json(folder / "calibration.json", calibration)
        tracked.metrics({f"{label}/{name}": value for name, value in metrics.items()})


def _measure_and_normalise(
    members: list[ScalarModel],
    heldout_rows: list[Comparison],
    heldout_pairs: list[Comparison],
    codec: Codec,
    settings: RewardModel,
    normalise: Callable[[], None],
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Normalise the members; gives the quality of the scorer as it was trained, in the logits of its probabilities.

    Members can only be combined once they are normalised. The combined score is then in standard deviations on SFT
    samples, and the mean of the members' deviations turns it back into logits.
    """
    if len(members) == 1:
        measured = quality(members[0], heldout_rows, heldout_pairs, codec, settings, scale=1.0)
        normalise()
        return measured
    normalise()
    scorer = Ensemble(members, settings.ensemble, settings.ensemble_std_coef)
    scale = sum(member.classifier.config.score_std for member in members) / len(members)
    return quality(scorer, heldout_rows, heldout_pairs, codec, settings, scale)
