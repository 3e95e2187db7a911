"""The occupancy grid finds matter, forgets it, and makes a budget of samples go further."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.rendering import occupancy
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.volume import render

CENTRE = np.array([0.3, 0.1, -0.2])


def small_ball(x):
    inside = jnp.sum((x - CENTRE) ** 2, -1) < 0.25**2
    return 60.0 * inside, jnp.broadcast_to(jnp.array([1.0, 0.5, 0.0]), x.shape)


def soft_ball(x):
    """Density falls smoothly to zero at the surface, so that every pixel tells samples apart."""
    density = 60.0 * jnp.maximum(1 - jnp.sum((x - CENTRE) ** 2, -1) / 0.25**2, 0)
    return density, jnp.broadcast_to(jnp.array([1.0, 0.5, 0.0]), x.shape)


def empty(x):
    return jnp.zeros(len(x)), x


def updated(field_fn=small_ball, resolution=16, times=3):
    grid = occupancy.init(resolution)
    step = jax.jit(lambda grid, key: occupancy.update(grid, field_fn, key, points_per_cell=2))
    for i in range(times):
        grid = step(grid, jax.random.key(i))
    return grid


def test_fresh_grid_may_be_occupied_anywhere():
    assert np.all(occupancy.init(8).occupied)


def test_update_marks_the_ball_and_its_neighbourhood():
    grid = updated()
    middle = (np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1) + 0.5) / 8 - 1
    distance = np.linalg.norm(middle - CENTRE, axis=-1)
    occupied = np.asarray(grid.occupied)
    assert np.all(occupied[distance < 0.25])
    assert not np.any(occupied[distance > 0.25 + 0.125 * 3])
    points = jnp.array([CENTRE, [-0.9, -0.9, 0.9], [0.3, 0.1, 0.9], [5.0, 5, 5]], jnp.float32)
    np.testing.assert_array_equal(occupancy.occupied_at(grid, points), [True, False, False, False])


def test_density_decays_once_matter_is_gone():
    grid = updated()
    forget = jax.jit(lambda grid, key: occupancy.update(grid, empty, key, decay=0.5))
    later = forget(grid, jax.random.key(9))
    np.testing.assert_allclose(later.density, 0.5 * grid.density)
    for i in range(20):
        later = forget(later, jax.random.key(i))
    assert not np.any(later.occupied)


def test_no_gradient_flows_into_the_grid():
    def loss(scale):
        def scaled(x):
            return scale * jnp.ones(len(x)), x

        return jnp.sum(occupancy.update(occupancy.init(4), scaled, jax.random.key(0)).density)

    value, slope = jax.value_and_grad(loss)(2.0)
    assert value == 128
    assert slope == 0


def test_update_vmaps_over_seeds():
    grids = jax.tree.map(lambda *x: jnp.stack(x), occupancy.init(8), occupancy.init(8))

    @jax.jit
    def one(grid, scale, key):
        return occupancy.update(grid, lambda x: (scale * small_ball(x)[0], x), key)

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(one)(grids, jnp.array([1.0, 0.0]), keys)
    alone = one(occupancy.init(8), 1.0, keys[0])
    np.testing.assert_array_equal(together.occupied[0], alone.occupied)
    assert not np.any(together.occupied[1])


def test_ray_weights_by_hand():
    """A ray along -z through the ball: only bins near it weigh 1; a ray beside it weighs evenly."""
    grid = updated()
    origins = jnp.array([[0.3, 0.1, 3.0], [-0.9, -0.9, 3.0]])
    directions = jnp.array([[0.0, 0, -1], [0, 0, -1]])
    near, far = jnp.full(2, 2.0), jnp.full(2, 4.0)
    weights = occupancy.ray_weights(grid, origins, directions, near, far, bins=32, floor=0.1)
    z = 3 - (2 + 2 * (np.arange(32) + 0.5) / 32)
    assert np.all(weights[0][np.abs(z + 0.2) < 0.25] == 1)
    np.testing.assert_allclose(weights[0][np.abs(z + 0.2) > 0.6], 0.1, rtol=1e-6)
    np.testing.assert_allclose(weights[1], 0.1, rtol=1e-6)


def test_pruned_rendering_beats_uniform_samples_at_equal_budget():
    camera = orbit(0.3, 0.2, 2.7, np.deg2rad(40))

    @partial(jax.jit, static_argnames="samples")
    def picture(key, grid, samples):
        return render(
            soft_ball, camera, key, occupancy=grid, height=16, width=16, samples_per_ray=samples
        ).rgb

    truth = picture(None, None, 1024)
    errors = {
        name: float(jnp.sqrt(jnp.mean((picture(jax.random.key(5), grid, 24) - truth) ** 2)))
        for name, grid in (("uniform", None), ("pruned", updated(soft_ball)))
    }
    assert errors["pruned"] < 0.4 * errors["uniform"]
    assert errors["pruned"] < 0.01


def test_empty_grid_samples_like_no_grid():
    camera = orbit(0.3, 0.2, 2.7, np.deg2rad(40))
    grid = updated(empty)

    @jax.jit
    def picture(grid):
        return render(
            small_ball, camera, jax.random.key(1), occupancy=grid, height=6, width=6,
            samples_per_ray=8,
        )  # fmt: skip

    pruned, plain = picture(grid), picture(None)
    np.testing.assert_allclose(pruned.distances, plain.distances, atol=1e-5)
    np.testing.assert_allclose(pruned.deltas, plain.deltas, atol=1e-6)
