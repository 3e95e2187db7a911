"""What comes after the last step is compiled while the steps are."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import jax

from dsd_jax.engine import host_memory, loop, turns
from dsd_jax.engine.picture_memory import VIEW_SIZE
from dsd_jax.engine.results import mesh_cameras
from dsd_jax.engine.seed_views import SeedRenderer, compile_renderer, final_stage
from dsd_jax.export.field_grid import field_of
from dsd_jax.export.mesh import MeshSettings
from dsd_jax.export.mesh_programs import compilations
from dsd_jax.export.scenes import SavedScene
from dsd_jax.metrics import efficientnet, judge
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State


@contextmanager
def compiling_ahead(
    recipe: Recipe, renderers: Sequence[SeedRenderer], meshes: bool
) -> Iterator[Callable[[State], None]]:
    """Yields a function that begins to compile, on other threads, what comes after the last step.

    That function is given the states before a step; its first call counts. At the context's end
    what has not been begun is given up: what is called then compiles itself, and says what is wrong
    if anything is. Several processes compile nothing ahead.
    """
    if jax.process_count() > 1:
        yield lambda states: None
        return
    pool = ThreadPoolExecutor(min(max((os.cpu_count() or 1) - 1, 1), turns.TURNS))
    begun: list[Future] = []

    def begin(states: State) -> None:
        if begun:
            return
        shapes = jax.tree.map(loop.shape_of, states)
        jobs = [partial(_compile_scores, len(states.step))]
        jobs += [partial(compile_renderer, one, shapes, recipe) for one in renderers]
        if meshes:
            params = jax.tree.map(_of_one, shapes.params)
            field = field_of(SavedScene(recipe.scene, params, final_stage(recipe)))
            jobs += compilations(field, mesh_cameras(recipe), MeshSettings())
        begun.extend(pool.submit(_beside_a_run, job) for job in jobs)

    try:
        yield begin
    finally:
        pool.shutdown(cancel_futures=True)


def _beside_a_run(job: Callable[[], object]) -> None:
    with turns.beside_a_run():
        job()
        host_memory.give_back()


def _compile_scores(seeds: int) -> None:
    count = seeds * len(judge.AZIMUTHS_DEG)
    efficientnet.compile_features(efficientnet.load_efficientnet(), count, VIEW_SIZE)


def _of_one(shapes: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shapes.shape[1:], shapes.dtype)
