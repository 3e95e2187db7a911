"""Cost against the number of seeds that run together: a table, and a picture of it."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from .menu import NUMBER

Curves = dict[tuple[str, str], dict[int, float]]


def curves(rows: list[dict[str, Any]]) -> Curves:
    """{(model, work): {number of seeds: seed-iterations a second}} of the rows of steps."""
    found: Curves = defaultdict(dict)
    for row in rows:
        number = NUMBER.fullmatch(row["size"])
        if row["work"].startswith("seed-iteration") and number:
            found[row["model"], row["work"]][int(number[1])] = 1e3 / row["milliseconds"]
    return dict(found)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each number of seeds, a column for each model and way of the ODE."""
    found = curves(rows)
    heads = ["seeds", *(f"{model}, {work.removeprefix('seed-iteration, ')}: seed-iterations/s"
                        for model, work in found)]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    for n in sorted({n for curve in found.values() for n in curve}):
        lines.append([str(n), *(f"{c[n]:.0f}" if n in c else "" for c in found.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def picture(rows: list[dict[str, Any]], file: Path) -> None:
    """A PNG of the same; dotted is what one seed's speed would amount to."""
    from matplotlib.figure import Figure

    figure = Figure((6, 4), layout="constrained")
    axes = figure.subplots()
    for (model, work), curve in curves(rows).items():
        n, speed = zip(*sorted(curve.items()), strict=True)
        (drawn,) = axes.plot(n, speed, "o-", label=f"{model}, {work.split(', ')[-1]}")
        alone = [speed[0] / n[0] * number for number in n]
        axes.plot(n, alone, ":", color=drawn.get_color())
    axes.set(xscale="log", xlabel="seeds together", ylabel="seed-iterations a second")
    counts = sorted({n for curve in curves(rows).values() for n in curve})
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    top = max(speed for curve in curves(rows).values() for speed in curve.values())
    axes.set_ylim(0, 1.2 * top)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=150)
