"""Plans of views, and whole sets of pictures against one picture at a time."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from dsd_jax.data import pictures
from dsd_jax.data.objects import DISTANCE, FOV_Y, load_objects
from dsd_jax.rendering import mesh
from dsd_jax.rendering.cameras import orbit

ON_TWO_DEVICES = """
import sys, jax, numpy as np
from dsd_jax.data import objects, pictures
from dsd_jax.rendering import mesh
mesh._UNROLL = 2
assert len(jax.devices()) == 2
found = objects.load_objects(sys.argv[1])
plan = pictures.plan_views(np.random.default_rng(0), 3, 1)
few = dict(resolution=8, batch=1)
two = pictures.render_views(found, [2, 0, 2], plan, devices=jax.devices(), **few)
one = pictures.render_views(found, [2, 0, 2], plan, **few)
assert abs(two.astype(int) - one).max() <= 1
(rows, batch), *_ = pictures.render_batches(found, [2, 0], plan, devices=jax.devices(), **few)
assert len(batch.sharding.device_set) == 2
"""


@pytest.fixture(autouse=True)
def short_loop_body(monkeypatch):
    monkeypatch.setattr(mesh, "_UNROLL", 4)


def test_groups_are_four_views_90_degrees_apart():
    plan = pictures.plan_views(np.random.default_rng(0), 50, 20)
    azimuth = plan.azimuth.reshape(50, 20, 4)
    elevation = np.degrees(plan.elevation.reshape(50, 20, 4))
    turn = (np.diff(azimuth, axis=-1) + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turn, np.pi / 2, atol=1e-5)
    assert np.abs(azimuth).max() <= np.pi + 1e-6
    assert np.ptp(elevation, axis=-1).max() == 0
    assert elevation.min() >= -10 and elevation.max() <= 80
    assert 0.06 < (elevation[..., 0] > 45).mean() < 0.14
    assert abs(np.exp(1j * azimuth[..., 0]).mean()) < 0.1  # first azimuths all around


def test_lights_are_fixed_within_a_group_and_mild():
    plan = pictures.plan_views(np.random.default_rng(1), 30, 3)
    for leaf in jax.tree.leaves(plan.lights):
        groups = leaf.reshape(30, 3, 4, -1)
        assert np.ptp(groups, axis=2).max() == 0 and np.ptp(groups[:, :, 0], axis=1).max() > 0
    lights = plan.lights
    np.testing.assert_allclose(np.linalg.norm(lights.directions, axis=-1), 1, rtol=1e-5)
    assert lights.ambient.min() >= 0.55
    key = lights.ambient + lights.intensities[..., 0]
    assert key.min() >= 0.95 and key.max() <= 1.05
    first = plan.azimuth[:, ::4]
    towards = np.stack([np.sin(first), 0 * first, np.cos(first)], -1)
    assert (towards * lights.directions[:, ::4, 0]).sum(-1).min() > 0  # the key's side is seen


def test_plans_repeat_with_the_generator():
    one, two, other = (pictures.plan_views(np.random.default_rng(s), 2, 2) for s in (3, 3, 4))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.azimuth != other.azimuth).all()


def test_a_set_of_pictures_equals_one_at_a_time(objects_file):
    objects = load_objects(objects_file)
    order = [2, 1, 0, 2]
    plan = pictures.plan_views(np.random.default_rng(0), len(order), 1)
    calls = []
    found = pictures.render_views(
        objects,
        order,
        plan,
        resolution=8,
        batch=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert found.shape == (4, 4, 8, 8, 4) and found.dtype == np.uint8
    assert calls == [(2, 4), (3, 4), (4, 4)]
    for row, i in enumerate(order):
        camera = orbit(plan.azimuth[row, 1], plan.elevation[row, 1], DISTANCE, FOV_Y)
        lights = jax.tree.map(lambda leaf, row=row: leaf[row, 1], plan.lights)
        render = jax.jit(mesh.render_triangles, static_argnums=4)
        one = render(objects.triangles(i), objects.colours(i), camera, lights, 8)
        np.testing.assert_allclose(found[row, 1] / 255, one, atol=1 / 255)
        assert found[row, 1, ..., 3].max() > 0
        assert (found[row, 1, ..., :3] <= found[row, 1, ..., 3:]).all()  # premultiplied


def test_two_devices_share_the_objects(objects_file):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(objects_file)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
