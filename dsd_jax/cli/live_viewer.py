"""The viewer while a run goes on: the chosen seed as it is after every block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from dsd_jax.engine import hosts
from dsd_jax.engine.loop import Progress
from dsd_jax.engine.seed_views import stage_of
from dsd_jax.export.live import Live
from dsd_jax.export.viewer import Exhibit, Viewer, how_to_reach
from dsd_jax.recipe.recipe import Recipe

# (seeds of a chunk, what became of them) -> None
Show = Callable[[list[int], Progress], None]


@contextmanager
def show_growing(
    seeds: Sequence[int], recipe: Recipe, port: int, say: Callable[[str], None]
) -> Iterator[Show]:
    """Serve a viewer; yields what to call after each block.

    The chosen seed alone is copied off its device. Of several processes the first one serves, and
    shows those seeds that its own devices have.

    Args:
        say: is told where the viewer is.
    """
    latest: dict[str, Live] = {}
    names = {seed: f"seed {seed}" for seed in seeds}
    exhibits = [Exhibit(n, (0.0, 0.0, 0.0), partial(latest.get, n)) for n in names.values()]
    if not hosts.is_first():
        yield lambda chunk, progress: None
        return
    with Viewer(exhibits, port, chosen=exhibits[0].name) as viewer:
        say(how_to_reach(port))

        def show(chunk: list[int], progress: Progress) -> None:
            chosen, states = viewer.chosen, progress.states
            rows = [i for i, seed in enumerate(chunk) if names[seed] == chosen][:1]
            own = hosts.own_row((states.params, states.occupancy), *rows) if rows else None
            if own is not None:
                latest[chosen] = Live(recipe.scene, own[0], stage_of(states, recipe), own[1])
                viewer.refresh()

        yield show
