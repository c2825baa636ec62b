"""How all figures look, as PNG files whose bytes depend on the numbers alone.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Target = Path | IO[bytes]  # a file, by its name or open

BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
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


@contextmanager
def drawing(
    to: Target,
    size: tuple[float, float],
    *,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] = (1,),
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A styled figure with its axes in reading order, saved when the block ends well.

    Args:
        heights: of the rows, in turns.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no window, no state, Agg draws

    with rc_context(STYLE):
        figure = Figure(figsize=size, dpi=170, layout="constrained")
        ratios = [heights[row % len(heights)] for row in range(rows)]
        grid = figure.subplots(rows, columns, squeeze=False, sharex=columns == 1, height_ratios=ratios)
        yield figure, list(grid.flat)
        # matplotlib's version must not be part of the bytes.
        figure.savefig(to, format="png", metadata={"Software": None})
