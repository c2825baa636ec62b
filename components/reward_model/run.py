"""The reward model: comparisons become a scorer. The judge is the same code on other rows, with another seed."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from components import paths
from components.artifacts import atomic_folder, write_json
from components.config import Params, RewardModel
from components.core.calibration import expected_calibration_error, pairwise_accuracy, reliability_table
from components.core.losses import bradley_terry_loss
from components.data.rows import Comparison, Prompt, read_rows
from components.engines.generation import generate
from components.engines.sampling import uniforms
from components.errors import TrainingError
from components.measuring.weak_scorers import margin_over_baseline, weakness
from components.models.cuts import cut_fractions_of_pairs, distinct_pairs
from components.models.ensemble import Ensemble
from components.models.loading import (
    ScalarModel,
    load_codec,
    load_policy,
    new_scalar_model,
    save_scorer,
)
from components.models.text import Codec
from components.passes.forward import in_microbatches, sequence_scores
from components.passes.sequences import Packed, Sequences, comparison_pairs
from components.seeding import derive_seed, generator
from components.tracking import stage_run
from components.training.accelerator import frame_of, start_accelerator, whole
from components.training.fit import Examples, fit

logger = logging.getLogger("proximal")


def run(params: Params, stage: str) -> None:
    """Train one scorer; `stage` is "reward_model" or "judge" and names its rows, its params and its folder.

    It may have several members, which see the same rows and differ in the seed of their heads and of the order.
    """
    settings = getattr(params, stage)
    source, heldout_source = (paths.CLEAN / f"comparisons_{stage}{part}.jsonl" for part in ("", "_heldout"))
    pairs_source = paths.CLEAN / f"comparisons_{stage}_heldout_pairs.jsonl"
    prompts_source = paths.CLEAN / "prompts_train.jsonl"
    policy_folder = paths.SFT / "policy"
    rows, heldout_rows, heldout_pairs = (read_rows(path, Comparison) for path in (source, heldout_source, pairs_source))
    accelerator = start_accelerator()
    codec = load_codec(policy_folder)
    seed = params.seed + settings.seed_offset
    # Beside the stage, a further member's number names its random numbers: a first member is a scorer of its own.
    own_names: list[tuple[int, ...]] = [(), *((number,) for number in range(2, settings.members + 1))]
    members = [new_scalar_model(policy_folder, derive_seed(seed, stage, "head", *own)) for own in own_names]
    cut = cut_fractions_of_pairs(codec, stage, rows)
    read = len(rows)
    rows = distinct_pairs(rows, codec, str(source))
    pairs = comparison_pairs(rows, codec)

    def chosen_and_rejected(index: Tensor) -> Sequences:
        # They go through in one pass: they share most of their padding.
        return pairs.rows(torch.cat([index, index + len(rows)]))

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        chosen, rejected = sequence_scores(model, part).chunk(2)
        return bradley_terry_loss(chosen, rejected).sum()

    longer_of_both = pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0)
    examples = Examples(chosen_and_rejected, weights=torch.ones(len(rows)), lengths=longer_of_both)
    inputs = [policy_folder, source, heldout_source, pairs_source, prompts_source]
    with stage_run(stage, params, inputs=inputs) as run:
        run.dataset("comparisons", source)
        last_epochs: list[float] = []
        for place, (own, member) in enumerate(zip(own_names, members, strict=True)):
            suffix = "".join(f"_{number}" for number in own)

            def report(step: int, loss: float, name: str = f"train/loss{suffix}") -> None:
                run.metrics({name: loss}, step=step)

            frame = frame_of(accelerator, member)
            losses = fit(
                accelerator,
                member,
                examples,
                loss_sum,
                settings=settings,
                generator=generator(seed, stage, *own),
                on_step=report,
                label=stage,
            )
            members[place] = whole(accelerator, member, frame)
            last_epochs += losses[-(len(losses) // settings.epochs) :]
        if accelerator.is_main_process:
            prompts = read_rows(prompts_source, Prompt)
            quality, calibration = _measure_and_normalise(
                members, heldout_rows, heldout_pairs, prompts, codec, params, stage
            )
            if weak := weakness(stage.replace("_", " "), quality):
                logger.warning("%s: what it scores is not to be trusted", weak)
            metrics = {"comparisons": len(rows), "loss": sum(last_epochs) / len(last_epochs), **quality}
            metrics |= {**cut, "comparisons_cut_alike": read - len(rows)}
            folder_out = paths.ARTIFACTS / stage
            with atomic_folder(folder_out) as folder:
                save_scorer(members, settings.ensemble, settings.ensemble_std_coef, folder / "model")
                write_json(folder / "metrics.json", metrics)
                write_json(folder / "calibration.json", calibration)
            run.metrics({f"{stage}/{name}": value for name, value in metrics.items()})
            run.outputs(sorted(folder_out.iterdir()))


def _score(model: nn.Module, sequences: Sequences, batch_size: int) -> Tensor:
    device = next(model.parameters()).device
    (scores,) = in_microbatches(lambda part: (sequence_scores(model, part),), sequences.to(device), batch_size)
    return scores.cpu()


def _measure_and_normalise(
    members: list[ScalarModel],
    heldout_rows: list[Comparison],
    heldout_pairs: list[Comparison],
    prompts: list[Prompt],
    codec: Codec,
    params: Params,
    stage: str,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Normalise the members; gives the quality of the scorer as it was trained, in the logits of its probabilities.

    Members can only be combined once they are normalised. The combined score is then in standard deviations on SFT
    samples, and the mean of the members' deviations turns it back into logits.
    """
    settings = getattr(params, stage)
    if len(members) == 1:
        measured = _quality(members[0], heldout_rows, heldout_pairs, codec, settings, scale=1.0)
        _normalise(members, prompts, codec, params, stage)
        return measured
    _normalise(members, prompts, codec, params, stage)
    scorer = Ensemble(members, settings.ensemble, settings.ensemble_std_coef)
    scale = sum(member.classifier.config.score_std for member in members) / len(members)
    return _quality(scorer, heldout_rows, heldout_pairs, codec, settings, scale)


def _quality(
    scorer: nn.Module,
    rows: list[Comparison],
    pairs: list[Comparison],
    codec: Codec,
    settings: RewardModel,
    scale: float,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Quality on unseen prompts, and beside it the accuracy on unseen pairs of seen prompts, where there are such.

    The second is what a scorer gets that knows its prompts; a policy's prompts are like the first.
    """
    metrics, calibration = _heldout_quality(scorer, rows, codec, settings, scale)
    metrics["margin_over_baseline_heldout"] = margin_over_baseline(
        metrics["accuracy_heldout"], metrics["longer_wins_accuracy_heldout"]
    )
    if pairs:
        of_pairs, _ = _heldout_quality(scorer, pairs, codec, settings, scale)
        metrics["accuracy_heldout_pairs"] = of_pairs["accuracy_heldout"]
    metrics["comparisons_heldout_pairs"] = len(pairs)
    return metrics, calibration


def _heldout_quality(
    scorer: nn.Module, rows: list[Comparison], codec: Codec, settings: RewardModel, scale: float
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Accuracy and calibration on comparisons whose prompts were not trained on; logits are `scale` times scores."""
    rows = distinct_pairs(rows, codec, "held-out comparisons")
    scores = _score(scorer, comparison_pairs(rows, codec), 2 * settings.microbatch_size)
    chosen, rejected = (scale * scores).chunk(2)
    # Every comparison is shown in one fixed order of its two texts: how often the first one wins is what the
    # predicted probability must match. (Always asking about the chosen one would leave nothing to calibrate.)
    first_is_chosen = torch.tensor([row.chosen < row.rejected for row in rows])
    first_margin = torch.where(first_is_chosen, chosen - rejected, rejected - chosen)
    probabilities = torch.sigmoid(first_margin)
    longer = [len(row.chosen.split()) - len(row.rejected.split()) for row in rows]
    metrics = {
        "accuracy_heldout": float(pairwise_accuracy(chosen, rejected).mean()),
        "loss_heldout": float(bradley_terry_loss(chosen, rejected).mean()),
        "expected_calibration_error": expected_calibration_error(
            probabilities, first_is_chosen, settings.calibration_bins
        ),
        "longer_wins_accuracy_heldout": sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in longer) / len(rows),
        "comparisons_heldout": len(rows),
    }
    table = reliability_table(probabilities, first_is_chosen, settings.calibration_bins)
    return metrics, [row._asdict() for row in table]


def _normalise(members: list[ScalarModel], prompts: list[Prompt], codec: Codec, params: Params, stage: str) -> None:
    """Shift and scale each member's scores to mean 0 and standard deviation 1 on the same samples of the SFT policy."""
    settings = getattr(params, stage)
    policy = load_policy(paths.SFT / "policy").to(next(members[0].parameters()).device)
    chosen = prompts[: settings.normalisation_prompts]
    numbers = uniforms(
        len(chosen), params.language_model.max_response_tokens, generator(params.seed, stage, "normalisation")
    )
    samples = generate(
        policy,
        codec,
        codec.encode_prompts([row.prompt for row in chosen]),
        numbers,
        temperature=params.measurement.temperature,
        batch_size=params.measurement.batch_size,
    )
    for member in members:
        scores = _score(member, samples, params.measurement.batch_size)
        mean, std = float(scores.mean()), float(scores.std()) if len(chosen) > 1 else 0.0
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise TrainingError(
                "the scores cannot be normalised",
                where=f"{stage}, scores of the SFT policy's responses to {len(chosen)} prompts",
                expected="finite scores that differ",
                found=f"mean {mean}, standard deviation {std}",
                do=f"raise {stage}.normalisation_prompts or the number of prompts, or lower {stage}.learning_rate",
            )
        member.classifier.config.score_mean, member.classifier.config.score_std = mean, std
