"""Tables of scores, {row: {column: value}}, for people and for programs."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dsd_jax.files import atomic_path

Rows = Mapping[str, Mapping[str, Any]]


def markdown(rows: Rows, columns: Mapping[str, str], head: str) -> str:
    """A Markdown table, one line a row.

    Args:
        columns: {column: how its numbers are written, as in `format`}; underscores become spaces.
        head: title of the column of names.

    What is missing or None is a dash.
    """

    def cell(value, form):
        return "-" if value is None else format(value, form)

    lines = [" | ".join([head, *(name.replace("_", " ") for name in columns)])]
    lines += [" | ".join(["---"] * (len(columns) + 1))]
    for name, row in rows.items():
        cells = (cell(row.get(column), form) for column, form in columns.items())
        lines.append(" | ".join([name, *cells]))
    return "".join(f"| {line} |\n" for line in lines)


def shown(columns: Mapping[str, str], rows: Rows, optional: Iterable[str]) -> dict[str, str]:
    """The columns without those optional ones that are missing or None in every row."""
    empty = {name for name in optional if all(row.get(name) is None for row in rows.values())}
    return {name: form for name, form in columns.items() if name not in empty}


def save_csv(path: Path, rows: Rows, columns: Iterable[str], head: str) -> None:
    """The same in full precision, atomically; what is missing is empty."""
    columns = list(columns)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([head, *columns])
        for name, row in rows.items():
            table.writerow([name, *(row.get(column) for column in columns)])
