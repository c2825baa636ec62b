"""The reward model: comparisons become a scorer. The judge is the same code on other rows, with another seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components import paths
from components.artifacts import atomic_folder, read_jsonl, write_json
from components.config import Params, RewardModel
from components.core.calibration import expected_calibration_error, reliability_table
from components.core.losses import bradley_terry_loss
from components.errors import TrainingError
from components.language_model.acceleration import start_accelerator
from components.language_model.fitting import fit
from components.language_model.forward import in_microbatches, sequence_scores
from components.language_model.generation import generate, uniforms
from components.language_model.loading import (
    ScalarModel,
    load_codec,
    load_policy,
    new_scalar_model,
    save_scalar_model,
)
from components.language_model.sequences import Sequences, build_sequences
from components.language_model.text import Codec
from components.profile import span
from components.seeding import derive_seed, generator
from components.tracking import stage_run


def run(params: Params, stage: str) -> None:
    """Train one scorer; `stage` is "reward_model" or "judge" and names its rows, its params and its folder."""
    settings = getattr(params, stage)
    source, heldout_source = (paths.CLEAN / f"comparisons_{stage}{part}.jsonl" for part in ("", "_heldout"))
    prompts_source = paths.CLEAN / "prompts_train.jsonl"
    policy_folder = paths.SFT / "policy"
    rows, heldout_rows = read_jsonl(source), read_jsonl(heldout_source)
    accelerator = start_accelerator()
    codec = load_codec(policy_folder)
    seed = params.seed + settings.seed_offset
    model = new_scalar_model(policy_folder, derive_seed(seed, stage, "head"))
    pairs = _pairs(rows, codec)

    def loss_sum(model: nn.Module, index: Tensor) -> Tensor:
        # Chosen and rejected go through in one pass: they share most of their padding.
        both = torch.cat([index, index + len(rows)])
        scores = sequence_scores(model, pairs.rows(both).to(accelerator.device))
        chosen, rejected = scores.chunk(2)
        return bradley_terry_loss(chosen, rejected).sum()

    inputs = [policy_folder, source, heldout_source, prompts_source]
    with stage_run(stage, params, inputs=inputs) as run:
        run.dataset("comparisons", source)
        losses = fit(
            accelerator,
            model,
            loss_sum,
            weights=torch.ones(len(rows)),
            lengths=pairs.mask.sum(dim=1).reshape(2, -1).amax(dim=0),
            settings=settings,
            generator=generator(seed, stage),
            on_step=lambda step, loss: run.metrics({"train/loss": loss}, step=step),
            label=stage,
        )
        if accelerator.is_main_process:
            last_epoch = losses[-(len(losses) // settings.epochs) :]
            quality, calibration = _heldout_quality(model, heldout_rows, codec, settings)
            _normalise(model, read_jsonl(prompts_source), codec, params, stage)
            metrics = {"comparisons": len(rows), "loss": sum(last_epoch) / len(last_epoch), **quality}
            folder_out = paths.ARTIFACTS / stage
            with atomic_folder(folder_out) as folder:
                save_scalar_model(model, folder / "model")
                write_json(folder / "metrics.json", metrics)
                write_json(folder / "calibration.json", calibration)
            run.metrics({f"{stage}/{name}": value for name, value in metrics.items()})
            run.outputs(sorted(folder_out.iterdir()))


def _pairs(rows: list[dict[str, str]], codec: Codec) -> Sequences:
    """All chosen responses, then all rejected ones, with their prompts."""
    prompts = codec.encode_prompts([row["prompt"] for row in rows])
    responses = codec.encode_responses([row[side] for side in ("chosen", "rejected") for row in rows])
    return build_sequences(prompts + prompts, responses, codec.pad_id)


def _score(model: nn.Module, sequences: Sequences, batch_size: int) -> Tensor:
    device = next(model.parameters()).device
    (scores,) = in_microbatches(lambda part: (sequence_scores(model, part),), sequences.to(device), batch_size)
    return scores.cpu()


@span("evaluation")
def _heldout_quality(
    model: ScalarModel, rows: list[dict[str, str]], codec: Codec, settings: RewardModel
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Accuracy and calibration on comparisons whose prompts were not trained on."""
    chosen, rejected = _score(model, _pairs(rows, codec), 2 * settings.microbatch_size).chunk(2)
    # Every comparison is shown in one fixed order of its two texts: how often the first one wins is what the
    # predicted probability must match. (Always asking about the chosen one would leave nothing to calibrate.)
    first_is_chosen = torch.tensor([row["chosen"] < row["rejected"] for row in rows])
    first_margin = torch.where(first_is_chosen, chosen - rejected, rejected - chosen)
    probabilities = torch.sigmoid(first_margin)
    longer = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    metrics = {
        "accuracy_heldout": float((chosen > rejected).float().mean()),
        "loss_heldout": float(bradley_terry_loss(chosen, rejected).mean()),
        "expected_calibration_error": expected_calibration_error(
            probabilities, first_is_chosen, settings.calibration_bins
        ),
        "longer_wins_accuracy_heldout": sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in longer) / len(rows),
        "comparisons_heldout": len(rows),
    }
    table = reliability_table(probabilities, first_is_chosen, settings.calibration_bins)
    return metrics, [row._asdict() for row in table]


@span("evaluation")
def _normalise(model: ScalarModel, prompts: list[dict[str, str]], codec: Codec, params: Params, stage: str) -> None:
    """Shift and scale the scores to mean 0 and standard deviation 1 on samples of the SFT policy."""
    settings = getattr(params, stage)
    policy = load_policy(paths.SFT / "policy").to(next(model.parameters()).device)
    chosen = prompts[: settings.normalisation_prompts]
    numbers = uniforms(
        len(chosen), params.language_model.max_response_tokens, generator(params.seed, stage, "normalisation")
    )
    samples = generate(
        policy,
        codec,
        codec.encode_prompts([row["prompt"] for row in chosen]),
        numbers,
        temperature=params.measurement.temperature,
        batch_size=params.measurement.batch_size,
    )
    scores = _score(model, samples, params.measurement.batch_size)
    mean, std = float(scores.mean()), float(scores.std()) if len(chosen) > 1 else 0.0
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise TrainingError(
            "the scores cannot be normalised",
            where=f"{stage}, scores of the SFT policy's responses to {len(chosen)} prompts",
            expected="finite scores that differ",
            found=f"mean {mean}, standard deviation {std}",
            do=f"raise {stage}.normalisation_prompts or the number of prompts, or lower {stage}.learning_rate",
        )
    model.classifier.config.score_mean, model.classifier.config.score_std = mean, std
