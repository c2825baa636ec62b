"""The reward model: comparisons become a scorer, as far as its parts are trained, and all parts are stored as one.

The judge is the same code on other rows, with another seed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.artifacts import atomic_folder, write_json
from components.config import Compute, RewardModel, Shared
from components.config.scoring import Stored
from components.core.losses import bradley_terry_loss
from components.data.rows import Comparison, Prompt, read_rows
from components.errors import DataError
from components.measuring.weak_scorers import weakness
from components.models.cuts import cut_fractions_of_pairs, distinct_pairs
from components.models.ensemble import Ensemble
from components.models.loading import load_codec, new_scalar_model, save_scorer
from components.models.scalar_model import ScalarModel
from components.models.text import Codec
from components.passes.forward import sequence_scores
from components.passes.sequences import Packed, Sequences, comparison_pairs
from components.reward_model.normalisation import normalise_members, sft_samples
from components.reward_model.parts import Parts, make_parts, require_parts
from components.reward_model.quality import quality, scores_of
from components.scoring.scorer import SCORER_FILE, TRAINED
from components.seeding import derive_seed, generator
from components.tracking import StageRun
from components.training.accelerator import start_accelerator
from components.training.fit import Examples, fit
from components.training.resumable import Resumable
from components.training.sharding import frame_of, whole
from components.work_folder import ended

logger = logging.getLogger("proximal")


class Inputs(NamedTuple):
    """What a scorer reads; `policy` is the SFT policy, whose trunk it begins with, `files` hold what its parts name."""

    policy: Path
    comparisons: Path
    heldout: Path
    heldout_pairs: Path
    prompts: Path
    files: tuple[Path, ...] = ()


def run(
    settings: RewardModel,
    shared: Shared,
    inputs: Inputs,
    out: Path,
    tracked: StageRun,
    *,
    label: str,
    work: Path,
    compute: Compute,
) -> None:
    """Train what is to be trained of one scorer and write all of it, its quality and its calibration to `out`.

    It may have several members, which see the same rows and differ in the seed of their heads and of the order.

    Args:
        label: "reward_model" or "judge", which names its random numbers and its figures.
        work: the folder for checkpoints of the fits.
        compute: whether the work of another number of processes goes on.
    """
    heldout_rows, heldout_pairs = (read_rows(path, Comparison) for path in (inputs.heldout, inputs.heldout_pairs))
    accelerator = start_accelerator()
    codec, device = load_codec(inputs.policy), accelerator.device
    prompts = read_rows(inputs.prompts, Prompt)
    if accelerator.is_main_process:
        require_parts(settings, shared, prompts, label, device)
    fits = _fits(accelerator, settings, shared, tracked, label, work, compute)
    members, metrics = _train(accelerator, settings, shared, inputs, codec, tracked, label, fits)
    if not accelerator.is_main_process:
        return
    parts: Parts | None = None
    if members:
        device = next(members[0].parameters()).device
    if members or any(isinstance(part, Stored) for part in settings.parts.values()):
        samples = sft_samples(inputs.policy, prompts, codec, settings, shared, label, device)
    else:
        samples = None  # what a function, an endpoint or the rubric gives counts as it is
    if settings.is_one_trained_model:
        normalise = partial(normalise_members, members, samples, shared, label)
        measured, calibration = _measure_and_normalise(members, heldout_rows, heldout_pairs, codec, settings, normalise)
    else:
        normalise_members(members, samples, shared, label)
        parts = make_parts(settings, shared, members, samples, codec, label, device)
        measured, calibration = parts.quality(heldout_rows, heldout_pairs), []
    if weak := weakness(label.replace("_", " "), measured):
        logger.warning("%s: what it scores is not to be trusted", weak)
    metrics |= measured
    with atomic_folder(out) as folder:
        trained, model = (folder / "model" / TRAINED if parts else folder / "model"), folder / "model"
        if members:
            save_scorer(members, settings.ensemble, settings.ensemble_std_coef, trained)
        if parts:
            model.mkdir(exist_ok=True)
            write_json(model / SCORER_FILE, parts.content)
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "calibration.json", calibration)
    ended(work, label, [fit.folder for fit in fits])
    tracked.metrics({f"{label}/{name}": value for name, value in metrics.items()})


def _fits(
    accelerator: Accelerator,
    settings: RewardModel,
    shared: Shared,
    tracked: StageRun,
    label: str,
    work: Path,
    compute: Compute,
) -> list[Resumable]:
    """The fit of each member; none where no part is trained."""
    values = {"seed": shared.seed, "language_model": shared.language_model.model_dump(mode="json")}
    values[label] = settings.model_dump(mode="json")
    names = [label, *(f"{label}_{number}" for number in range(2, settings.members + 1))]
    return [
        Resumable(accelerator, work, name, values, tracked.inputs, compute) for name in names if settings.is_trained
    ]


def _train(
    accelerator: Accelerator,
    settings: RewardModel,
    shared: Shared,
    inputs: Inputs,
    codec: Codec,
    tracked: StageRun,
    label: str,
    fits: list[Resumable],
) -> tuple[list[ScalarModel], dict[str, float]]:
    """Train the members on the comparisons; none where no part is trained.

    Raises:
        DataError: there are no comparisons to train on.
    """
    rows = read_rows(inputs.comparisons, Comparison)
    if not settings.is_trained:
        return [], {"comparisons": 0}
    if not rows:
        raise DataError(
            "there are no comparisons to train on",
            where=str(inputs.comparisons),
            expected=f"comparisons, for the trained part of {label}.parts",
            found="none",
            do=f"bring comparisons, or make {label}.parts of others: function, http, rubric or checkpoint",
        )
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
    seconds = 0.0
    for place, (own, member) in enumerate(zip(own_names, members, strict=True)):
        suffix = "".join(f"_{number}" for number in own)

        def report(step: int, loss: float, name: str = f"train/loss{suffix}") -> None:
            tracked.metrics({name: loss}, step=step)

        frame = frame_of(accelerator, member)
        losses, taken = fit(
            accelerator,
            member,
            examples,
            loss_sum,
            settings=settings,
            generator=generator(seed, label, *own),
            on_step=report,
            label=label,
            resumable=fits[place],
        )
        seconds += taken
        members[place] = whole(accelerator, member, frame)
        last_epochs += losses[-(len(losses) // settings.epochs) :]
    tracked.metrics({"cost/seconds": seconds})
    metrics = {"comparisons": len(rows), "loss": sum(last_epochs) / len(last_epochs)}
    return members, metrics | cut | {"comparisons_cut_alike": read - len(rows)}


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
    batch_size = 2 * settings.microbatch_size
    if len(members) == 1:
        score = partial(_score, members[0], batch_size)
        measured = quality(score, heldout_rows, heldout_pairs, codec, settings, scale=1.0)
        normalise()
        return measured
    normalise()
    scorer = Ensemble(members, settings.ensemble, settings.ensemble_std_coef)
    scale = sum(member.classifier.config.score_std for member in members) / len(members)
    return quality(partial(_score, scorer, batch_size), heldout_rows, heldout_pairs, codec, settings, scale)


def _score(scorer: nn.Module, batch_size: int, _rows: list[Comparison], sequences: Sequences) -> Tensor:
    return scores_of(scorer, sequences, batch_size)
