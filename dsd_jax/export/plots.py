"""Plots as PNG files."""

from collections.abc import Mapping
from pathlib import Path

from dsd_jax.files import atomic_path

MARKERS = "os^Dv<>PXp*hd8"


def save_scatter(
    path: Path, panels: Mapping[str, Mapping[str, tuple[float, float]]], x_label: str
) -> None:
    """One point a name, in panels beside one another that share the x axis and the legend.

    Args:
        panels: {label of the y axis: {name: (x, y)}}, all with the same names.
        x_label: label of the x axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels) + 2.2, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, points) in zip(axes, panels.items(), strict=True):
        for i, (name, point) in enumerate(points.items()):
            style = {"color": f"C{i % 10}", "marker": MARKERS[i % len(MARKERS)]}
            axis.plot(*point, **style, markersize=8, linestyle="none", label=name)
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.margins(0.12)
        axis.locator_params("x", nbins=5)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
