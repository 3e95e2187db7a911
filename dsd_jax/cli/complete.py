"""Whether a run is complete: all that it promises is there and whole."""

from pathlib import Path

from dsd_jax.export import manifest
from dsd_jax.export.gallery import PAGES, write_gallery
from dsd_jax.export.run_folder import read_metrics


def is_complete(run: Path) -> bool:
    """Whether this run's folder holds all results, whole, of a run that was not interrupted.

    Where of those only the page is not, it is written anew.
    """
    try:
        metrics, broken = read_metrics(run), manifest.faults(run)
        if broken and all(Path(name).name in PAGES for name in broken):
            write_gallery(run)
            broken = manifest.faults(run)
        return metrics.get("interrupted") is False and not broken
    except (OSError, ValueError):
        return False


def lost_seeds(run: Path) -> list[int]:
    """The seeds of a complete run that diverged, or of which nothing is left."""
    return list(read_metrics(run).get("lost") or [])
