"""Means of rows of scores."""

from collections.abc import Iterable, Mapping
from typing import Any


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean of each column over the rows that have a number there; None where none has."""
    rows = list(rows)
    values = {name: [row[name] for row in rows if row.get(name) is not None]
              for name in dict.fromkeys(name for row in rows for name in row)}  # fmt: skip
    return {name: sum(found) / len(found) if found else None for name, found in values.items()}
