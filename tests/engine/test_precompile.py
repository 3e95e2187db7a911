"""What is compiled while the steps are."""

import time
from functools import partial

import pytest

from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.generate import initial_states, make_blocks
from dsd_jax.engine.precompile import compiling_ahead
from dsd_jax.engine.seed_views import seed_renderer, shoot
from dsd_jax.engine.task import make_task
from dsd_jax.recipe.recipe import changed


@pytest.fixture
def task(prior, recipe):
    """Of sizes that no other test compiles."""
    return make_task(prior, "red", changed(recipe, samples=6, width=4))


def test_what_is_compiled_beforehand_is_not_compiled_again(task, compilations):
    """The steps' programs and the renderer, from states that keep no ODE yet."""
    mesh, recipe = seed_mesh(1), task.recipe
    ((_, block),) = make_blocks(task, mesh)
    renderer = seed_renderer(recipe.scene, 8, 6, mesh)
    states, shared = place(mesh, initial_states(task, [3]), task.shared)
    with compiling_ahead(recipe, [renderer], meshes=False) as ahead:
        block.compile(states, shared, partial(ahead, states))
        ahead(states)  # its first call counts
        began = time.monotonic()
        while "jit(all_seeds)" not in compilations and time.monotonic() - began < 60:
            time.sleep(0.01)  # what is not begun at the end is given up
    names = ["jit(_step)", "jit(all_seeds)", "jit(fill)", "jit(refresh)"]
    assert [name for name in sorted(compilations) if name in names] == names
    states, _ = block(states, 0, 1, shared)
    shoot(renderer, states, [0, 120], 20, recipe)
    assert [name for name in sorted(compilations) if name in names] == names
