"""How good a scorer is: accuracy and calibration on comparisons that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.config import RewardModel
from components.core.calibration import expected_calibration_error, pairwise_accuracy, reliability_table
from components.core.losses import bradley_terry_loss
from components.data.rows import Comparison
from components.measuring.weak_scorers import margin_over_baseline
from components.models.cuts import distinct_pairs
from components.models.text import Codec
from components.passes.forward import in_microbatches, sequence_scores
from components.passes.sequences import Sequences, comparison_pairs

# From comparisons and their N chosen, then N rejected responses to scores, (2N,), on the CPU.
Score = Callable[[list[Comparison], Sequences], Tensor]


def scores_of(model: nn.Module, sequences: Sequences, batch_size: int) -> Tensor:
    """The scores of sequences, on the CPU. Shapes: (B,)."""
    device = next(model.parameters()).device
    (scores,) = in_microbatches(lambda part: (sequence_scores(model, part),), sequences.to(device), batch_size)
    return scores.cpu()


def quality(
    score: Score,
    rows: list[Comparison],
    pairs: list[Comparison],
    codec: Codec,
    settings: RewardModel,
    scale: float | None,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Quality on unseen prompts, and beside it the accuracy on unseen pairs of seen prompts, where there are such.

    The second is what a scorer gets that knows its prompts; a policy's prompts are like the first. Without comparisons
    of unseen prompts there are no figures but their number.

    Args:
        scale: logits are so many times the scores; None for scores that no probability follows from.
    """
    if not rows:
        return {"comparisons_heldout": 0}, []
    metrics, calibration = _heldout_quality(score, rows, codec, settings, scale)
    metrics["margin_over_baseline_heldout"] = margin_over_baseline(
        metrics["accuracy_heldout"], metrics["longer_wins_accuracy_heldout"]
    )
    if pairs:
        of_pairs, _ = _heldout_quality(score, pairs, codec, settings, scale)
        metrics["accuracy_heldout_pairs"] = of_pairs["accuracy_heldout"]
    metrics["comparisons_heldout_pairs"] = len(pairs)
    return metrics, calibration


def _heldout_quality(
    score: Score, rows: list[Comparison], codec: Codec, settings: RewardModel, scale: float | None
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Accuracy and calibration on comparisons whose prompts were not trained on; logits are `scale` times scores."""
    rows = distinct_pairs(rows, codec, "held-out comparisons")
    scores = score(rows, comparison_pairs(rows, codec))
    chosen, rejected = ((1.0 if scale is None else scale) * scores).chunk(2)
    # Every comparison is shown in one fixed order of its two texts: how often the first one wins is what the
    # predicted probability must match. (Always asking about the chosen one would leave nothing to calibrate.)
    first_is_chosen = torch.tensor([row.chosen < row.rejected for row in rows])
    first_margin = torch.where(first_is_chosen, chosen - rejected, rejected - chosen)
    probabilities = torch.sigmoid(first_margin)
    longer = [len(row.chosen.split()) - len(row.rejected.split()) for row in rows]
    of_probabilities = {
        "loss_heldout": float(bradley_terry_loss(chosen, rejected).mean()),
        "expected_calibration_error": expected_calibration_error(
            probabilities, first_is_chosen, settings.calibration_bins
        ),
    }
    metrics = {
        "accuracy_heldout": float(pairwise_accuracy(chosen, rejected).mean()),
        **(of_probabilities if scale is not None else {}),
        "longer_wins_accuracy_heldout": sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in longer) / len(rows),
        "comparisons_heldout": len(rows),
    }
    if scale is None:
        return metrics, []
    table = reliability_table(probabilities, first_is_chosen, settings.calibration_bins)
    return metrics, [row._asdict() for row in table]
