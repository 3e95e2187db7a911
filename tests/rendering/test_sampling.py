"""Ray intervals, strata, and the estimator of optical depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.rendering import sampling


def unit(v):
    v = jnp.asarray(v, jnp.float32)
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)


def test_box_interval_by_hand():
    origins = jnp.array([[0.0, 0, 3], [3, 3, 3], [0, 0, 0], [0, 2, 3], [0, 0, 3]])
    directions = unit([[0, 0, -1], [-1, -1, -1], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
    near, far = sampling.ray_box(origins, directions)
    expected = [(2, 4), (2 * 3**0.5, 4 * 3**0.5), (0, 1), None, None]
    for n, f, want in zip(near, far, expected, strict=True):
        if want is None:
            assert f == n
        else:
            np.testing.assert_allclose((n, f), want, rtol=1e-5)


def test_ball_interval_by_hand():
    origins = jnp.array([[0.0, 0, 3], [0.6, 0, 3], [0, 0, 0], [0, 2, 3], [0, 0, 3]])
    directions = unit([[0, 0, -1], [0, 0, -1], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
    near, far = sampling.ray_ball(origins, directions)
    expected = [(2, 4), (2.2, 3.8), (0, 1), None, None]
    for n, f, want in zip(near, far, expected, strict=True):
        if want is None:
            assert f == n
        else:
            np.testing.assert_allclose((n, f), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interval", [sampling.ray_box, sampling.ray_ball])
def test_ends_of_random_intervals_lie_on_the_surface(interval):
    a, b = jax.random.normal(jax.random.key(0), (2, 200, 3))
    origins, directions = 3 * unit(a), unit(0.8 * b - 3 * unit(a))
    near, far = interval(origins, directions)
    hit = np.asarray(far > near)
    assert 20 < hit.sum() < 180 or interval is sampling.ray_box
    for t in (near, far):
        end = np.asarray(origins + t[:, None] * directions)[hit]
        size = np.abs(end).max(-1) if interval is sampling.ray_box else np.linalg.norm(end, axis=-1)
        np.testing.assert_allclose(size, 1, atol=1e-5)


def test_strata_hold_one_sample_each():
    u = sampling.strata(jax.random.key(0), (50, 8))
    assert np.all(np.floor(np.asarray(u) * 8) == np.arange(8))
    np.testing.assert_allclose(sampling.strata(None, (2, 4))[1], [0.125, 0.375, 0.625, 0.875])


def test_samples_are_counted_alike_everywhere(monkeypatch):
    """By bisection, which a CPU does, and by comparing all; equal numbers are counted."""
    ends = jnp.cumsum(jax.random.uniform(jax.random.key(0), (5, 9)), -1)
    mass = jnp.concatenate([ends[:, 2:5], jnp.zeros((5, 1)), ends[:, -1:] + 1], -1)
    by_hand = [[3, 4, 5, 0, 9]] * 5
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        np.testing.assert_array_equal(sampling._how_many(ends, mass), by_hand)


def test_uniform_weights_give_uniform_placement():
    near, far = jnp.array([1.0, 2.0]), jnp.array([2.0, 2.0])
    u = sampling.strata(jax.random.key(0), (2, 16))
    plain = sampling.place_uniformly(near, far, u)
    weighted = sampling.place_by_weights(near, far, u, jnp.full((2, 10), 0.3))
    for a, b in zip(plain, weighted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert not np.any(weighted[1][1])


def test_weighted_placement_by_hand():
    """Bins of weight 1, 3 on [0, 2]: a quarter of the samples falls into the first."""
    u = jnp.array([[0.125, 0.375, 0.625, 0.875]])
    zero, two = jnp.zeros(1), jnp.full(1, 2.0)
    t, delta = sampling.place_by_weights(zero, two, u, jnp.array([[1.0, 3.0]]))
    np.testing.assert_allclose(t[0], [0.5, 1 + 1 / 6, 1.5, 1 + 5 / 6], rtol=1e-6)
    np.testing.assert_allclose(delta[0], [1, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_optical_depth_is_unbiased_whatever_the_weights():
    """Mean over many rays of sum_i sigma(t_i) delta_i against the integral, for rough weights."""
    rays, samples = 20000, 6
    weights = jnp.array([0.05, 1, 1, 0.05, 0.5, 0.05, 1, 0.05])
    u = sampling.strata(jax.random.key(0), (rays, samples))
    t, delta = sampling.place_by_weights(
        jnp.zeros(rays), jnp.full(rays, 2.0), u, jnp.broadcast_to(weights, (rays, 8))
    )
    sigma = jnp.where((t > 0.3) & (t < 0.6), 5.0, 0.2 + jnp.sin(3 * t) ** 2)
    got = jnp.sum(sigma * delta, -1)
    grid = (np.arange(200000) + 0.5) / 100000
    dense = np.where((grid > 0.3) & (grid < 0.6), 5.0, 0.2 + np.sin(3 * grid) ** 2).mean() * 2
    error = np.std(got) / rays**0.5
    assert error < 0.02
    assert abs(np.mean(got) - dense) < 4 * error


def test_samples_ascend_and_stay_inside():
    weights = jax.random.uniform(jax.random.key(1), (100, 12), minval=0.02)
    u = sampling.strata(jax.random.key(0), (100, 9))
    t, delta = sampling.place_by_weights(jnp.ones(100), jnp.full(100, 3.0), u, weights)
    assert np.all(np.diff(t, axis=-1) >= 0)
    assert np.all((t >= 1) & (t <= 3))
    assert np.all(delta > 0)


def test_samples_go_where_matter_was_seen():
    """Of 10 strata the third was seen: it and its neighbours get four fifths of the samples."""
    weights = jnp.zeros((1, 10)).at[0, 2].set(0.7)
    mass, part = sampling.where_seen(weights, sampling.strata(None, (1, 100)))
    near = (mass[0] >= 0.1) & (mass[0] < 0.4)
    assert abs(int(near.sum()) - 86) <= 1  # and their share of the rest
    np.testing.assert_allclose(jnp.sum(part), 1, rtol=0.01)
    unseen, even = sampling.where_seen(jnp.zeros((1, 10)), sampling.strata(None, (1, 4)))
    np.testing.assert_allclose(unseen[0], [0.125, 0.375, 0.625, 0.875], rtol=1e-5)
    np.testing.assert_allclose(even[0], [0.25] * 4, rtol=1e-5)
