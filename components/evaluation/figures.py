"""The figures of the evaluation as PNG files whose bytes depend on the numbers alone.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; curves that share a
panel differ in marker and dash besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.measuring.metrics import GOLD, metric_that_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, MUTED, GRID = "#1f2430", "#667085", "#e4e7ec"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
}

# column of cycles.json -> label, colour, marker, dash
PROXIES = {
    "reward": ("training reward model (proxy)", ORANGE, "o", "-"),
    "judge": ("judge (independent reward model)", BLUE, "s", "--"),
}
TRUTH = ("gold", GREEN, "D", "-")
_OF_PARTS = ((SKY, "^"), (PINK, "v"), (MUTED, "P"))  # colour and marker, in turns

# column of curve.json -> title; what a curve file does not hold is not drawn
TRAINING = {
    "reward": "Training reward",
    "kl": "KL to SFT, nats per sequence",
    "kl_coef": "KL coefficient",
    "entropy": "Entropy, nats per token",
    "response_tokens": "Response length, tokens",
    "value_loss": "Value loss",
    "policy_loss": "Policy loss",
    "clip_fraction": "Clipped share of tokens",
    "approx_kl": "KL of one update, nats per token",
}


def over_optimisation(
    path: Path, cycles: Sequence[Mapping[str, float]], chosen: int, max_kl: float, parts: Sequence[str] = ()
) -> None:
    """Proxy and judge above, gold and its parts below, against the square root of the KL to the SFT policy.

    Two panels over one distance: proxy and judge share a unit (standard deviations on SFT samples), gold has
    its own. Over-optimisation is where the upper curves go on rising and the lower ones turn down.
    """
    has_rubric = metric_that_counts(cycles[0]) is GOLD
    looks = zip(parts, cycle(_OF_PARTS), strict=False)
    truth = {GOLD.name: TRUTH} | {name: (name, colour, marker, ":") for name, (colour, marker) in looks}
    distance = [row["sqrt_kl"] for row in cycles]
    ceiling = max_kl**0.5
    with drawing(path, (7.6, 6.2 if has_rubric else 3.9), rows=2 if has_rubric else 1) as (figure, axes):
        for axis, curves in zip(axes, (PROXIES, truth), strict=False):
            for column, (label, colour, marker, dash) in curves.items():
                values = [row[column] for row in cycles]
                main = column in (*PROXIES, GOLD.name)
                axis.plot(
                    distance, values, dash, color=colour, marker=marker, label=label,
                    linewidth=2.2 if main else 1.3, markersize=6 if main else 4.5,
                )  # fmt: skip
            axis.margins(x=0.04, y=0.12)
            if ceiling < max(distance):
                axis.axvspan(ceiling, max(distance) * 1.5 + 1, color=MUTED, alpha=0.10, linewidth=0)
            axis.axvline(cycles[chosen]["sqrt_kl"], color=INK, linewidth=1.1, alpha=0.6)
            axis.set_xlim(-0.04 * max(distance) - 1e-3, max(distance) * 1.04 + 1e-2)
            below = -0.13 if axis is axes[-1] else -0.03  # under the numbers of the lowest axis
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=4, columnspacing=1.4)
        if ceiling < max(distance):
            axes[0].annotate(
                "above the KL ceiling", (ceiling, 0), xycoords=("data", "axes fraction"), xytext=(5, 5),
                textcoords="offset points", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        axes[0].set_title("Reward models: standard deviations above SFT samples", pad=20)
        if has_rubric:
            axes[1].set_title("Rubric, never seen in training: gold and its parts")
        _name_cycles(axes[0], cycles, chosen)
        figure.supxlabel("√KL to the SFT policy, with KL in nats per sequence", fontsize=9.5, color=INK)


def _name_cycles(axis: Axes, cycles: Sequence[Mapping[str, float]], chosen: int) -> None:
    """Cycle numbers along the top; one that would touch another is left out, the chosen one never."""
    left, right = axis.get_xlim()
    centre = cycles[chosen]["sqrt_kl"]
    last = left
    for number, row in enumerate(cycles):
        where = row["sqrt_kl"]
        crowded = abs(where - centre) < 0.11 * (right - left) or where - last < 0.03 * (right - left)
        if number != chosen and crowded:
            continue
        last = where
        name = "SFT" if number == 0 else f"cycle {number}, chosen" if number == chosen else str(number)
        axis.annotate(
            name, (where, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize=8.5, color=INK if number == chosen else MUTED,
            weight="bold" if number == chosen else "normal",
        )  # fmt: skip


def training_curves(path: Path, rows: Sequence[Mapping[str, float]], target_kl: float | None) -> None:
    """One small panel a figure of training, over all iterations of all cycles; thin lines part the cycles.

    Args:
        target_kl: nats per sequence; None where no controller aims at one.
    """
    columns = [column for column in TRAINING if column in rows[0]]
    iterations = [row["iteration"] for row in rows]
    borders = [after["iteration"] - 0.5 for before, after in pairwise(rows) if before["cycle"] != after["cycle"]]
    height = 1.0 + 1.75 * -(-len(columns) // 3)
    with drawing(path, (9.6, height), rows=-(-len(columns) // 3), columns=3) as (figure, axes):
        for axis in axes[len(columns) :]:
            axis.set_visible(False)
        for axis, column in zip(axes, columns, strict=False):
            for border in borders:
                axis.axvline(border, color=GRID, linewidth=1.0)
            axis.grid(axis="x", visible=False)
            axis.plot(iterations, [row[column] for row in rows], color=BLUE, linewidth=1.5)
            if column == "kl" and target_kl is not None:
                axis.axhline(target_kl, color=ORANGE, linestyle="--", linewidth=1.3)
                axis.annotate(
                    "target", (0.0, target_kl), xycoords=("axes fraction", "data"), xytext=(4, -3),
                    textcoords="offset points", va="top", fontsize=8.5, color=ORANGE,
                )  # fmt: skip
            axis.set_title(TRAINING[column], fontsize=9.5)
        figure.supxlabel("iteration; vertical lines part the cycles", fontsize=9.5, color=INK)


def calibration(path: Path, tables: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Reliability diagrams: how often a response won, against the probability that the model gave it."""
    with drawing(path, (7.6, 3.9), columns=len(tables)) as (_, axes):
        for axis, (name, bins) in zip(axes, tables.items(), strict=True):
            total = sum(row["size"] for row in bins)
            said, happened = [[row[key] for row in bins] for key in ("mean_probability", "frequency")]
            axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--")
            axis.plot(said, happened, color=BLUE, linewidth=1.4)
            sizes = [20 + 380 * row["size"] / total for row in bins]
            axis.scatter(said, happened, s=sizes, color=BLUE, alpha=0.75, linewidths=0, zorder=3)
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axis.set(xlabel="predicted probability", ylabel="observed frequency")
            axis.set_title(name)


@contextmanager
def drawing(
    path: Path, size: tuple[float, float], *, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A styled figure with its axes in reading order, saved when the block ends well."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state, Agg draws

    with rc_context(STYLE):
        figure = Figure(figsize=size, dpi=170, layout="constrained")
        stacked = columns == 1
        yield figure, list(figure.subplots(rows, columns, squeeze=False, sharex=stacked).flat)
        # matplotlib's version must not be part of the bytes.
        figure.savefig(path, format="png", metadata={"Software": None})
