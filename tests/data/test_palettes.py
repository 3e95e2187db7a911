"""Hue rotation and tints worked by hand, and what the colours are called afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.data import palettes
from dsd_jax.data.captions import hue_rotate

LUMA = np.array([0.2126, 0.7152, 0.0722])
THIRD = 2 * np.pi / 3


def test_a_third_of_a_turn_moves_red_to_green():
    # (1, 0, 0) becomes (0, 1, 0), whose luma is 0.5026 too high: (-0.5026, 0.4974, -0.5026).
    np.testing.assert_allclose(hue_rotate(jnp.array([1.0, 0, 0]), THIRD), [0, 0.4974, 0], atol=1e-6)
    muted = jnp.array([0.6, 0.4, 0.4])
    expected = np.array([0.4, 0.6, 0.4]) - 0.2 * (0.7152 - 0.2126)
    np.testing.assert_allclose(hue_rotate(muted, THIRD), expected, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_greys_stay_luma_stays_and_the_way_back_leads_home(jit, angle):
    rotate = jax.jit(hue_rotate) if jit else hue_rotate
    rgb = jnp.asarray(np.random.default_rng(0).uniform(0.4, 0.6, (5, 7, 3)), jnp.float32)
    turned = rotate(rgb, angle)
    np.testing.assert_allclose(turned @ LUMA, rgb @ LUMA, atol=1e-6)
    np.testing.assert_allclose(rotate(turned, -angle), rgb, atol=1e-6)
    grey = jnp.linspace(0, 1, 5)[:, None] * jnp.ones(3)
    np.testing.assert_allclose(rotate(grey, angle), grey, atol=1e-6)


def test_rotation_before_and_after_compositing_is_the_same():
    rng = np.random.default_rng(1)
    alpha = jnp.asarray(rng.uniform(0, 1, (6, 1)), jnp.float32)
    premultiplied = jnp.asarray(rng.uniform(0.4, 0.6, (6, 3)), jnp.float32) * alpha
    after = hue_rotate(premultiplied + 0.8 * (1 - alpha), 0.9)
    np.testing.assert_allclose(hue_rotate(premultiplied, 0.9) + 0.8 * (1 - alpha), after, atol=1e-6)


def test_tint_multiplies_and_clips():
    rgb = jnp.array([[0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    found = palettes.tint(rgb, jnp.array([0.8, 0.4, 0.0]), 1.5)
    np.testing.assert_allclose(found, [[0.6, 0.3, 0], [1, 0.6, 0]], atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(palettes.TINTS) - {"black", "gray", "white"}))
def test_tints_bear_their_own_names(name):
    assert palettes.colour_name(palettes.TINTS[name]) == name


@pytest.mark.parametrize("rgb", [(0.5, 0.5, 0.5), (0.9, 0.85, 0.85), (0.02, 0.0, 0.0)])
def test_greys_and_near_blacks_have_no_name(rgb):
    assert palettes.colour_name(rgb) is None


def faces_of_area(areas):
    """One right triangle of each area, legs of length 1 and twice the area."""
    triangles = np.zeros((len(areas), 3, 3), np.float32)
    triangles[:, 1, 0] = 1
    triangles[:, 2, 1] = 2 * np.asarray(areas)
    return triangles


def test_dominant_colour_is_weighted_by_area():
    triangles = faces_of_area([3, 3, 2, 2])
    red, dark_red, blue, grey = [0.9, 0.1, 0.1], [0.7, 0.1, 0.1], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]
    mean, share = palettes.dominant_colour(triangles, np.array([red, dark_red, blue, grey]))
    np.testing.assert_allclose(mean, [0.8, 0.1, 0.1], atol=1e-6)
    assert share == pytest.approx(0.6)
    assert palettes.dominant_colour(triangles, np.array([grey] * 4))[1] == 0


def test_a_colour_is_renamed_only_where_it_covers_the_object():
    triangles = faces_of_area([3, 1])
    mostly_red = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.9]])
    assert palettes.rotated_name("red", triangles, mostly_red, THIRD) == "green"
    assert palettes.rotated_name("red", triangles, mostly_red, 0.0) == "red"
    assert palettes.rotated_name("blue", triangles, mostly_red, THIRD) is None
    mixed = faces_of_area([1, 1.1])
    mixed_colours = np.array([[0.8, 0.1, 0.1], [0.5, 0.5, 0.5]])
    assert palettes.rotated_name("red", mixed, mixed_colours, THIRD) is None


def test_gain_brings_the_mean_luma_to_nine_tenths():
    triangles = faces_of_area([1, 3])
    rgb = np.array([[0.9, 0.9, 0.9], [0.3, 0.3, 0.3]])
    assert palettes.tint_gain(triangles, rgb) == pytest.approx(0.9 / 0.45)
    assert palettes.tint_gain(triangles, rgb * 0.01) == 6
    assert palettes.tint_gain(triangles, rgb * 0 + 1) == 1


def test_nature_keeps_its_hue():
    assert palettes.hue_range("tree stump") < 0.5
    assert palettes.hue_range("car") == pytest.approx(np.pi)
