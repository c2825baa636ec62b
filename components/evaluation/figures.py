"""The figures of the evaluation; curves that share a panel differ in marker and dash besides their colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from math import nan
from typing import TYPE_CHECKING, Any

from components.evaluation.drawing import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PINK, SKY, Target, drawing
from components.measuring.intervals import Interval, share_interval
from components.measuring.metrics import GOLD, metric_that_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    "truncated_masked": "Truncated, left out of the loss",
    "prompts_replaced": "Prompts replaced",
    "prompts_left_alike": "Prompts whose responses score alike",
}


def over_optimisation(
    to: Target,
    cycles: Sequence[Mapping[str, Any]],
    chosen: int,
    max_kl: float,
    parts: Sequence[str] = (),
    *,
    narrow: bool = False,
) -> None:
    """Proxy and judge above, gold and its parts below, against the square root of the KL to the SFT policy.

    Two panels over one distance: proxy and judge share a unit (standard deviations on SFT samples), gold has
    its own. Over-optimisation is where the upper curves go on rising and the lower ones turn down.

    Args:
        cycles: with "intervals", which are drawn as bars at the points.
        narrow: for a phone.
    """
    has_rubric = metric_that_counts(cycles[0]) is GOLD
    looks = zip(parts, cycle(_OF_PARTS), strict=False)
    truth = {GOLD.name: TRUTH} | {name: (name, colour, marker, ":") for name, (colour, marker) in looks}
    farthest = max(row["sqrt_kl"] for row in cycles)
    ceiling = max_kl**0.5
    is_near = ceiling <= 2.5 * farthest  # one far beyond would leave the curves no room
    right = max(farthest, ceiling) if is_near else farthest
    width, height = (4.4, 3.5) if narrow else (7.6, 3.3)
    with drawing(to, (width, height * (1 + has_rubric)), rows=1 + has_rubric) as (figure, axes):
        for axis, curves in zip(axes, (PROXIES, truth), strict=False):
            for place, (column, look) in enumerate(curves.items()):
                _curve(axis, cycles, column, look, is_main=column in (*PROXIES, GOLD.name), aside=place * 0.004 * right)
            axis.margins(x=0.04, y=0.12)
            axis.axvline(cycles[chosen]["sqrt_kl"], color=INK, linewidth=1.1, alpha=0.6)
            if is_near:
                axis.axvline(ceiling, color=ORANGE, linewidth=1.2, linestyle=(0, (5, 3)))
                axis.axvspan(ceiling, 2 * right + 1, color=MUTED, alpha=0.10, linewidth=0)
            axis.set_xlim(-0.04 * right - 1e-3, right * 1.05 + 1e-2)
            below = -0.13 if axis is axes[-1] else -0.03  # under the numbers of the lowest axis
            across = 4 if not narrow else 1 if curves is PROXIES else 2
            axis.legend(
                loc="upper center", bbox_to_anchor=(0.5, below), ncols=across, columnspacing=1.2,
                fontsize=8 if narrow else 9,
            )  # fmt: skip
        if is_near:
            axes[0].annotate(
                "KL ceiling", (ceiling, 0), xycoords=("data", "axes fraction"), xytext=(-4, 5),
                textcoords="offset points", fontsize=8.5, color=ORANGE, ha="right",
            )  # fmt: skip
        rows = _name_cycles(axes[0], cycles, chosen, letters=12 * width)
        title = (
            "Reward models: SD above SFT samples" if narrow else "Reward models: standard deviations above SFT samples"
        )
        axes[0].set_title(title, pad=8 + 12 * rows)
        if has_rubric:
            axes[1].set_title(
                "Rubric, never seen in training" if narrow else "Rubric, never seen in training: gold and its parts"
            )
        beyond = "" if is_near else f"; the KL ceiling is far to the right, at {ceiling:.1f}"
        figure.supxlabel(
            f"√KL to the SFT policy, nats per sequence{beyond}", fontsize=9 if narrow else 9.5, color=INK, wrap=True
        )


def _curve(
    axis: Axes,
    cycles: Sequence[Mapping[str, Any]],
    column: str,
    look: tuple[str, str, str, str],
    *,
    is_main: bool,
    aside: float,
) -> None:
    """One curve with its intervals; `aside` keeps the bars of several curves apart."""
    label, colour, marker, dash = look
    means = [row[column] for row in cycles]
    reaches = [[abs(row["intervals"][column][end] - row[column]) for row in cycles] for end in ("low", "high")]
    axis.errorbar(
        [row["sqrt_kl"] + aside for row in cycles], means, yerr=reaches, linestyle=dash, color=colour, marker=marker,
        label=label, linewidth=2.2 if is_main else 1.3, markersize=6 if is_main else 4.5,
        elinewidth=1.3 if is_main else 0.8, capsize=2.5 if is_main else 1.5,
    )  # fmt: skip


def _name_cycles(axis: Axes, cycles: Sequence[Mapping[str, float]], chosen: int, letters: float) -> int:
    """Cycle numbers along the top, in as many lines as it takes that none touches another; returns that number.

    Args:
        letters: how many fit beside each other.
    """
    left, right = axis.get_xlim()
    per_letter = (right - left) / letters
    ends: list[float] = []
    for number, row in enumerate(cycles):
        where = row["sqrt_kl"]
        name = "SFT" if number == 0 else f"{number}, chosen" if number == chosen else str(number)
        reach = (len(name) / 2 + 0.8) * per_letter
        line = next((line for line, end in enumerate(ends) if end < where - reach), len(ends))
        ends[line : line + 1] = [where + reach]
        axis.annotate(
            name, (where, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3 + 12 * line),
            textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
            color=INK if number == chosen else MUTED, weight="bold" if number == chosen else "normal",
        )  # fmt: skip
    return len(ends)


def training_curves(
    to: Target, rows: Sequence[Mapping[str, float]], target_kl: float | None, *, narrow: bool = False
) -> None:
    """One small panel a figure of training, over all iterations of all cycles; thin lines part the cycles.

    Args:
        target_kl: nats per sequence; None where no controller aims at one.
        narrow: for a phone.
    """
    columns = [column for column in TRAINING if any(column in row for row in rows)]  # an iteration may lack one
    iterations = [row["iteration"] for row in rows]
    borders = [after["iteration"] - 0.5 for before, after in pairwise(rows) if before["cycle"] != after["cycle"]]
    across = 2 if narrow else 3
    down = -(-len(columns) // across)
    with drawing(to, (4.8 if narrow else 9.6, 1.0 + 1.75 * down), rows=down, columns=across) as (figure, axes):
        for axis in axes[len(columns) :]:
            axis.set_visible(False)
        for axis, column in zip(axes, columns, strict=False):
            for border in borders:
                axis.axvline(border, color=GRID, linewidth=1.0)
            axis.grid(axis="x", visible=False)
            axis.plot(iterations, [row.get(column, nan) for row in rows], color=BLUE, linewidth=1.5)
            if column == "kl" and target_kl is not None:
                axis.axhline(target_kl, color=ORANGE, linestyle="--", linewidth=1.3)
                axis.annotate(
                    "target", (0.0, target_kl), xycoords=("axes fraction", "data"), xytext=(4, -3),
                    textcoords="offset points", va="top", fontsize=8.5, color=ORANGE,
                )  # fmt: skip
            axis.set_title(TRAINING[column], fontsize=8.2 if narrow else 9.5)
        figure.supxlabel("iteration; vertical lines part the cycles", fontsize=9.5, color=INK)


def calibration(
    to: Target, tables: Mapping[str, Sequence[Mapping[str, float]]], confidence: float, *, narrow: bool = False
) -> None:
    """Reliability diagrams: how often a response won, against the probability that the model gave it.

    A scorer without bins gives no probabilities, or was held against no comparisons.

    A bar is the Wilson interval of a bin's frequency; below, how many comparisons each bin holds.
    """
    size = (4.8, 7.4) if narrow else (7.6, 4.6)
    with drawing(to, size, rows=4 if narrow else 2, columns=1 if narrow else len(tables), heights=(4, 1)) as (_, axes):
        above, below = (axes[::2], axes[1::2]) if narrow else (axes[: len(tables)], axes[len(tables) :])
        for axis, counts, (name, bins) in zip(above, below, tables.items(), strict=True):
            axis.set(title=name)
            if not bins:
                axis.text(0.5, 0.5, "not measured", ha="center", va="center", color=MUTED, transform=axis.transAxes)
                for empty in (axis, counts):
                    empty.set(xticks=[], yticks=[])
                continue
            said, happened = [[row[key] for row in bins] for key in ("mean_probability", "frequency")]
            intervals = [_of_bin(row, confidence) for row in bins]
            reaches = [
                [mean - interval.low for mean, interval in zip(happened, intervals, strict=True)],
                [interval.high - mean for mean, interval in zip(happened, intervals, strict=True)],
            ]
            axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--")
            axis.errorbar(
                said, happened, yerr=reaches, color=BLUE, marker="o", markersize=5, linestyle="none",
                elinewidth=1.2, capsize=2.5,
            )  # fmt: skip
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed frequency", title=name)
            counts.bar(said, [row["size"] for row in bins], width=0.06, color=SKY)
            counts.set(xlim=(-0.02, 1.02), xlabel="predicted probability", ylabel="count")
            counts.grid(axis="x", visible=False)


def _of_bin(row: Mapping[str, float], confidence: float) -> Interval:
    size = int(row["size"])
    if size < 2:  # one comparison says nothing of a frequency
        return Interval(row["frequency"], 0.0, 1.0)
    wins = round(row["frequency"] * size)
    return share_interval([1.0] * wins + [0.0] * (size - wins), confidence=confidence)
