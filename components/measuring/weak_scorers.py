"""Whether a reward model or judge is worth hearing: its held-out accuracy against rules that need no model at all."""

from __future__ import annotations

from collections.abc import Mapping

CHANCE = 0.5


def margin_over_baseline(accuracy: float, longer_wins_accuracy: float) -> float:
    """Held-out accuracy less that of the better of two rules: "the longer answer wins", and chance."""
    return accuracy - max(longer_wins_accuracy, CHANCE)


def weakness(scorer: str, metrics: Mapping[str, float]) -> str | None:
    """What is wrong with a scorer that loses to such a rule on unseen prompts, in words; None if it does not lose.

    None, too, for one that was held against no comparisons: see `unmeasured`.

    Args:
        scorer: its name in the sentence.
        metrics: its metrics.json.
    """
    if "accuracy_heldout" not in metrics:
        return None
    accuracy, longer_wins = metrics["accuracy_heldout"], metrics["longer_wins_accuracy_heldout"]
    if margin_over_baseline(accuracy, longer_wins) >= 0.0:
        return None
    rule = '"the longer answer wins"' if longer_wins > CHANCE else "chance"
    return (
        f"the {scorer} is right on {accuracy:.1%} of {metrics['comparisons_heldout']:.0f} comparisons of unseen "
        f"prompts, less than {rule} ({max(longer_wins, CHANCE):.1%})"
    )


def unmeasured(scorer: str, metrics: Mapping[str, float]) -> str | None:
    """That a scorer was held against no comparisons, in words; None if it was."""
    if "accuracy_heldout" in metrics:
        return None
    return f"how often the {scorer} prefers the better response is not known: it was held against no comparisons"
