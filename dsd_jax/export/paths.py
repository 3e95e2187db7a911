"""Figures of points that move in the plane: where each came from and where it ended.

Letters: n points, m moments, k circles.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dsd_jax.export.inline import figure_png
from dsd_jax.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe and Ito 2008), the palest left out.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


def draw_paths(
    panels: Mapping[str, Float[np.ndarray, "n m 2"]],
    groups: Int[np.ndarray, "n"],
    centres: Float[np.ndarray, "k 2"],
    radii: Float[np.ndarray, "k"],
    wanted: Bool[np.ndarray, "k"],
    legend: str = "",
    columns: int = 5,
    shown: int = 25,
    limit: float = 3.2,
) -> "Figure":
    """One panel a title: the paths of the first points, and the ends of all.

    Args:
        panels: {title: paths}.
        groups: which of the colours a point has, the same in all panels.
        centres, radii: circles to draw; those that are not `wanted` are dashed.
        legend: a line below the panels.
        columns: panels beside one another.
        shown: of how many points the whole path is drawn.
        limit: the axes run from -limit to limit; ends outside are counted in the corner.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((2.5 * columns, 2.8 * rows + 0.4 * bool(legend)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    colours = np.array(COLOURS)[np.asarray(groups) % len(COLOURS)]
    for axis, (title, paths) in zip(axes.flat, panels.items(), strict=False):
        _circles(axis, centres, radii, wanted)
        _paths(axis, np.asarray(paths), colours, shown, limit)
        axis.set_title(title, fontsize=9)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axis.set_xticks([-2, 0, 2])
        axis.set_yticks([-2, 0, 2])
        axis.tick_params(labelsize=7, length=2, color="0.6", labelcolor="0.4")
        axis.spines[:].set_color("0.8")
    for axis in axes.flat[max(len(panels) - columns, 0) : len(panels)]:
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    if legend:
        figure.supxlabel(legend, fontsize=8, color="0.25")
    return figure


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as a PNG with a palette, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(figure_png(figure))


def _circles(axis: Any, centres, radii, wanted) -> None:
    from matplotlib.patches import Circle

    for centre, radius, is_wanted in zip(centres, radii, wanted, strict=True):
        line = {"color": "0.35" if is_wanted else "0.6", "linestyle": "-" if is_wanted else ":"}
        axis.add_patch(Circle(tuple(centre), radius, fill=False, linewidth=0.8, zorder=3, **line))


def _paths(axis: Any, paths, colours, shown: int, limit: float) -> None:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(paths[:shown]), colors=list(colours[:shown]), linewidths=0.5)
    lines.set(alpha=0.35, zorder=1)
    axis.add_collection(lines)
    ends = paths[:, -1]
    axis.scatter(*ends.T, s=5, c=colours, alpha=0.75, linewidths=0, zorder=2)
    outside = int((np.abs(ends) > limit).any(1).sum())
    if outside:
        place = {"transform": axis.transAxes, "ha": "right", "va": "bottom"}
        axis.text(0.98, 0.02, f"{outside} outside", fontsize=7, color="0.4", **place)
