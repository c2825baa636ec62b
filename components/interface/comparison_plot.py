"""The picture of `proximal compare`: what each method gained, and how far it went from the SFT policy for it."""

from __future__ import annotations

from pathlib import Path

from components.evaluation.drawing import AMBER, BLUE, GREEN, INK, MUTED, ORANGE, PINK, SKY, drawing
from components.interface.comparison_tables import Figures
from components.measuring.metrics import KL, metric_that_counts

_COLOURS = {
    "ppo": ORANGE,
    "grpo": PINK,
    "rloo": SKY,
    "dpo": BLUE,
    "online_dpo": AMBER,
    "q_learning": MUTED,
    "best_of_n": GREEN,
}
_MARKERS = ("o", "s", "^", "D", "v", "P")  # of the seeds


def draw_comparison(figures: Figures, path: Path) -> None:
    """A point a run, with its intervals, in a PNG file: gold (the judge where there is no rubric) by KL."""
    seeds = list(dict.fromkeys(seed for _, seed in figures))
    path.parent.mkdir(parents=True, exist_ok=True)
    with drawing(path, (7.2, 4.6)) as (figure, (axis,)):
        for (method, seed), content in figures.items():
            sft, candidate = (content["evaluation"][side] for side in ("sft", "candidate"))
            truth = metric_that_counts(candidate)
            marker = _MARKERS[seeds.index(seed) % len(_MARKERS)]
            axis.plot([0.0], [sft[truth.name]["mean"]], marker=marker, color=INK, linestyle="none")
            at, gained = candidate[KL.name], candidate[truth.name]
            axis.errorbar(
                at["mean"],
                gained["mean"],
                xerr=[[at["mean"] - at["low"]], [at["high"] - at["mean"]]],
                yerr=[[gained["mean"] - gained["low"]], [gained["high"] - gained["mean"]]],
                color=_COLOURS[method],
                marker=marker,
                elinewidth=0.8,
                linestyle="none",
            )
            axis.set_ylabel(f"{truth.label} on held-out prompts, 95 % interval")
        axis.set_xlabel(f"{KL.label}, {KL.meaning}")
        axis.set_xlim(left=-0.1)
        for method in dict.fromkeys(method for method, _ in figures):
            axis.plot([], [], marker="o", color=_COLOURS[method], linestyle="none", label=method)
        axis.plot([], [], marker="o", color=INK, linestyle="none", label="SFT")
        for marker, seed in zip(_MARKERS, seeds, strict=False):
            axis.plot([], [], marker=marker, color="none", markeredgecolor=INK, linestyle="none", label=f"seed {seed}")
        figure.legend(loc="outside right upper")
