"""From a density on a grid to a signed distance."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dsd_jax.fields import solids

SOLID_OF = jax.jit(solids.solid_of, static_argnums=1)
DISTANCE = jax.jit(solids.signed_distance)


def box(g, *sides):
    """A grid that is True within these (low, high) grid points of each axis."""
    mask = np.zeros((g, g, g), bool)
    mask[tuple(slice(low, high + 1) for low, high in sides)] = True
    return mask


def test_pieces_are_those_of_scipy():
    mask = np.random.default_rng(0).random((9, 9, 9)) < 0.3
    ours, theirs = np.asarray(solids.pieces(jnp.asarray(mask))), ndimage.label(mask)[0]
    assert (ours > 0).tolist() == mask.tolist()
    pairs = {(a, b) for a, b in zip(ours[mask].tolist(), theirs[mask].tolist(), strict=True)}
    assert len(pairs) == len(np.unique(ours[mask])) == theirs.max()


def test_crumbs_go_and_parts_stay():
    """Of a piece of 125 points, one of 2 goes (2 % are 2.5) and one of 3 stays."""
    large = box(12, (0, 4), (0, 4), (0, 4))
    crumb, part = box(12, (8, 9), (8, 8), (8, 8)), box(12, (9, 11), (1, 1), (1, 1))
    found = np.asarray(solids.without_crumbs(jnp.asarray(large | crumb | part)))
    np.testing.assert_array_equal(found, large | part)


def test_a_shell_with_a_slit_becomes_solid():
    shell = box(16, (3, 12), (3, 12), (3, 12)) & ~box(16, (5, 10), (5, 10), (5, 10))
    whole = box(16, (3, 12), (3, 12), (3, 12))
    slit = shell & ~box(16, (7, 7), (0, 4), (4, 11))
    np.testing.assert_array_equal(SOLID_OF(jnp.asarray(shell), 0), whole)
    np.testing.assert_array_equal(SOLID_OF(jnp.asarray(slit), 0), slit)
    closed = np.asarray(SOLID_OF(jnp.asarray(slit), 1))
    assert closed[5:11, 5:11, 5:11].all() and not (closed & ~whole).any()


def test_closing_leaves_what_touches_the_border_as_it_is():
    whole = np.ones((6, 6, 6), bool)
    np.testing.assert_array_equal(SOLID_OF(jnp.asarray(whole), 2), whole)


def test_distances_are_those_of_scipy():
    mask = np.random.default_rng(1).random((8, 8, 8)) < 0.4
    outside, inside = (ndimage.distance_transform_edt(m) for m in (~mask, mask))
    wanted = np.where(mask, 0.5 - inside, outside - 0.5) * 2 / 7
    np.testing.assert_allclose(DISTANCE(jnp.asarray(mask)), wanted, atol=1e-5)


def test_the_rim_says_how_far_beyond_solid_points_the_surface_lies():
    plane = jnp.asarray(np.arange(5)[:, None, None] + np.zeros((5, 5, 5)) < 2)
    found = solids.signed_distance(plane, 0.25)[:, 2, 2]
    np.testing.assert_allclose(found, (np.arange(5) - 1.25) / 2, atol=1e-6)


def test_nothing_thin_is_lost_between_grid_points():
    """A wire of one fine grid point, at an odd one, is there on the coarse grid; and smoothed."""
    fine = jnp.asarray(box(13, (5, 5), (0, 12), (7, 7)))
    coarse = np.asarray(solids.halved(fine))
    assert coarse[2:4, :, 3:5].all() and coarse.sum() == 4 * 7
    wire = jnp.asarray(box(7, (3, 3), (0, 6), (3, 3)))
    smooth = np.asarray(solids.smoothed(solids.signed_distance(wire)))
    np.testing.assert_array_equal(smooth < 0, np.asarray(wire))


def test_of_nothing_all_is_far_outside():
    found = np.asarray(DISTANCE(jnp.zeros((5, 5, 5), bool)))
    assert np.isfinite(found).all() and found.min() > 3.4


def test_smoothing_keeps_planes():
    plane = jnp.asarray(np.arange(6.0)[:, None, None] + np.zeros((6, 6, 6)))
    np.testing.assert_allclose(solids.smoothed(plane)[1:-1], plane[1:-1])
    spike = jnp.zeros((5, 5, 5)).at[2, 2, 2].set(1.0)
    found = np.asarray(solids.smoothed(spike))
    assert found[2, 2, 2] == 0.125 and found[1, 2, 2] == 0.0625 and found.sum() == 1.0
