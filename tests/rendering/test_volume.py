"""Volume rendering against closed forms, finite differences and itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.fields.radiance import RadianceField, analytic_normals, finite_difference_normals
from dsd_jax.rendering import occupancy, sampling
from dsd_jax.rendering.cameras import Camera, orbit, rays
from dsd_jax.rendering.shading import PointLight
from dsd_jax.rendering.volume import absorption, render, render_rays

CAMERA = orbit(0.4, 0.3, 2.7, np.deg2rad(40))
SMALL = {"height": 6, "width": 5, "samples_per_ray": 7}


def tint(x):
    return jnp.stack([0.5 + 0.3 * x[:, 0], 0.5 - 0.2 * x[:, 1], 0.4 + 0.1 * x[:, 2]], -1)


def fog(x):
    return jnp.exp(-3 * jnp.sum(x * x, -1)) * 2.0, tint(x)


def soft_sphere(x, radius=0.6, sharpness=400.0):
    """Opaque inside; density rises over about 1/sharpness at the surface."""
    distance = jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1), 1e-12))
    return 150.0 * jax.nn.sigmoid(sharpness * (radius - distance)), jnp.full((len(x), 3), 0.25)


def test_weights_by_hand():
    """Optical depths log 2, log 4, 0: half is absorbed, then three quarters of the rest."""
    weights, opacity = absorption(jnp.log(jnp.array([2.0, 2.0, 1.0])), jnp.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(weights, [0.5, 0.375, 0], atol=1e-6)
    np.testing.assert_allclose(opacity, 0.875, atol=1e-6)


@pytest.mark.parametrize("key", [None, jax.random.key(0)])
def test_homogeneous_slab(key):
    """Fog of constant density between z = -0.5 and 0.5: opacity 1 - exp(-sigma L / cos)."""
    camera = orbit(0.0, 0.0, 2.7, np.deg2rad(20))
    sigma = 1.7

    def slab(origins, directions):
        down = -directions[:, 2]
        return (origins[:, 2] - 0.5) / down, (origins[:, 2] + 0.5) / down

    def field_fn(x):
        return jnp.full(len(x), sigma), jnp.broadcast_to(jnp.array([0.2, 0.4, 0.9]), x.shape)

    picture = render(
        field_fn, camera, key, height=5, width=5, samples_per_ray=16, interval=slab,
        background=jnp.array([1.0, 0.5, 0.0]),
    )  # fmt: skip
    _, directions = rays(camera, 5, 5)
    length = 1 / -np.asarray(directions)[..., 2]
    opacity = 1 - np.exp(-sigma * length)
    np.testing.assert_allclose(picture.opacity, opacity, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(picture.weights, -1), opacity, rtol=1e-5)
    expected = opacity[..., None] * [0.2, 0.4, 0.9] + (1 - opacity)[..., None] * [1, 0.5, 0]
    np.testing.assert_allclose(picture.rgb, expected, rtol=1e-5)


def test_depth_in_homogeneous_fog():
    """E[t | absorbed] = near + 1/sigma - L / (exp(sigma L) - 1)."""
    camera = orbit(0.0, 0.0, 3.0, np.deg2rad(1))
    picture = render(
        lambda x: (jnp.full(len(x), 2.0), x), camera, None, height=1, width=1, samples_per_ray=512
    )
    expected = 2 + 1 / 2.0 - 2 / (np.exp(4.0) - 1)
    np.testing.assert_allclose(picture.depth[0, 0], expected, rtol=1e-3)


@pytest.mark.parametrize("normals_at", ["samples", "surface"])
def test_opaque_sphere_has_its_silhouette_depth_and_normals(normals_at):
    size, radius, distance, fov = 48, 0.6, 2.7, np.deg2rad(40)
    camera = orbit(0.7, 0.2, distance, fov)
    picture = jax.jit(
        lambda: render(
            soft_sphere, camera, None, height=size, width=size, samples_per_ray=192,
            normals=analytic_normals, normals_at=normals_at, interval=sampling.ray_ball,
        )
    )()  # fmt: skip
    seen = np.tan(np.arcsin(radius / distance)) / np.tan(fov / 2) * size / 2
    np.testing.assert_allclose(jnp.sum(picture.opacity), np.pi * seen**2, rtol=0.03)
    origins, directions = (np.asarray(a, np.float64) for a in rays(camera, size, size))
    towards = -np.sum(origins * directions, -1)
    height2 = np.sum(origins**2, -1) - towards**2
    inner = height2 < (0.85 * radius) ** 2
    depth = towards - np.sqrt(np.where(inner, radius**2 - height2, 0))
    normal = (origins + depth[..., None] * directions) / radius
    np.testing.assert_allclose(np.asarray(picture.depth)[inner], depth[inner], atol=0.03)
    np.testing.assert_allclose(np.asarray(picture.normal)[inner], normal[inner], atol=0.06)
    assert not np.any(np.asarray(picture.normal)[height2 > 0.95])
    np.testing.assert_allclose(np.asarray(picture.rgb)[height2 > 0.9], 0.8, atol=1e-4)


def test_gradient_matches_finite_differences_in_float64():
    with jax.enable_x64(True):
        camera = Camera(*(jnp.asarray(np.asarray(leaf), jnp.float64) for leaf in CAMERA))
        light = PointLight(jnp.array([1.0, 2.0, 3.0]), *(jnp.float64(v) for v in (0.2, 0.7, 0.3)))
        target = jax.random.uniform(jax.random.key(1), (6, 5, 3), jnp.float64)

        def loss(theta, normals_at):
            def field_fn(x):
                density = jnp.exp(theta[0] - jnp.sum((x - theta[1:4]) ** 2, -1) * theta[4])
                return density, jax.nn.sigmoid(x + theta[5:8])

            picture = render(
                field_fn, camera, jax.random.key(0), shading=light, normals_at=normals_at,
                normals=analytic_normals, **SMALL,
            )  # fmt: skip
            assert picture.rgb.dtype == jnp.float64
            return jnp.mean((picture.rgb - target) ** 2) + jnp.mean(picture.depth)

        theta = jnp.array([1.0, 0.1, -0.2, 0.05, 3.0, 0.3, -0.4, 0.2])
        at_samples = jax.jit(lambda t: loss(t, "samples"))
        slope = jax.jit(jax.grad(at_samples))(theta)
        for i in range(len(theta)):
            step = jnp.zeros(len(theta)).at[i].set(1e-5)
            difference = (at_samples(theta + step) - at_samples(theta - step)) / 2e-5
            np.testing.assert_allclose(slope[i], difference, rtol=1e-6, atol=1e-9)


def test_surface_shading_lights_the_composited_albedo():
    """On an opaque sphere, both ways of shading agree where the surface faces the camera."""
    light = PointLight(jnp.array([1.0, 2.0, 3.0]), *(jnp.float32(v) for v in (0.2, 0.7, 0.0)))
    camera = orbit(0.0, 0.0, 2.7, np.deg2rad(20))

    @partial(jax.jit, static_argnames="normals_at")
    def picture(normals_at):
        return render(
            partial(soft_sphere, sharpness=60.0), camera, None, height=8, width=8,
            samples_per_ray=256, shading=light, normals_at=normals_at, interval=sampling.ray_ball,
        )  # fmt: skip

    a, b = picture("samples"), picture("surface")
    np.testing.assert_allclose(a.rgb[2:6, 2:6], b.rgb[2:6, 2:6], atol=0.02)
    facing = np.array([1, 2, 3 - 0.6]) / np.linalg.norm([1, 2, 3 - 0.6])
    expected = 0.25 * (0.2 + 0.7 * facing[2])
    np.testing.assert_allclose(np.mean(b.rgb[3:5, 3:5], (0, 1)), expected, atol=0.01)
    assert a.sample_normals.shape == (8, 8, 256, 3)
    assert b.sample_normals is None


def test_ambience_alone_is_the_plain_picture():
    light = PointLight(jnp.ones(3), jnp.float32(1), jnp.float32(0), jnp.float32(0))
    picture = jax.jit(
        lambda light: render(fog, CAMERA, None, shading=light, normals_at="surface", **SMALL)
    )
    lit, plain = picture(light), picture(None)
    np.testing.assert_allclose(lit.rgb, plain.rgb, atol=1e-6)
    assert plain.normal is None


def test_background_may_be_grey_colour_or_function():
    def sky(directions):
        return 0.5 + 0.5 * directions

    def nothing(x):
        return jnp.zeros(len(x)), x

    _, directions = rays(CAMERA, 6, 5)
    np.testing.assert_allclose(render(nothing, CAMERA, None, background=0.3, **SMALL).rgb, 0.3)
    colour = jnp.array([0.1, 0.2, 0.3])
    picture = render(nothing, CAMERA, None, background=colour, **SMALL)
    np.testing.assert_allclose(picture.rgb, np.broadcast_to(colour, (6, 5, 3)))
    assert not np.any(picture.depth)
    np.testing.assert_allclose(
        render(nothing, CAMERA, None, background=sky, **SMALL).rgb, sky(directions), atol=1e-6
    )


def test_chunks_keep_the_features_of_the_hash_grid_and_nothing_else_of_that_size():
    field = RadianceField(levels=3, features=2, log2_entries=8, base_resolution=4, width=16)
    params = field.init(jax.random.key(0), jnp.zeros((1, 3)))
    points = SMALL["height"] * SMALL["width"] * SMALL["samples_per_ray"]

    def pull_back(chunk):
        def view(params):
            field_fn = partial(field.apply, params)
            return render(field_fn, CAMERA, None, chunk=chunk, **SMALL).rgb

        return jax.vjp(view, params)[1]

    def of_points(chunk):
        """Numbers that the backward pass keeps of each point, by array."""
        sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: pull_back(chunk)))]
        return [size // points for size in sizes if size >= 5 * points]

    assert of_points(2) == [3 * 2]
    assert sum(of_points(None)) > 5 * 3 * 2


def test_chunks_change_nothing():
    density = jax.random.uniform(jax.random.key(0), (8, 8, 8))
    grid = occupancy.OccupancyGrid(density, density > 0.5)

    @partial(jax.jit, static_argnames="chunk")
    def both(scale, chunk):
        def value(scale):
            picture = render(
                lambda x: (scale * fog(x)[0], fog(x)[1]), CAMERA, jax.random.key(1), occupancy=grid,
                chunk=chunk, **SMALL,
            )  # fmt: skip
            return jnp.mean(picture.rgb), picture

        return jax.value_and_grad(value, has_aux=True)(scale)

    whole = jax.tree.leaves(both(1.3, None))
    for a, b in zip(jax.tree.leaves(both(1.3, 2)), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_empty_rays_are_skipped_and_the_others_keep_their_place():
    """Matter in one corner cell: its rays are as they were, in their pixels; the rest is plain."""
    occupied = jnp.zeros((8, 8, 8), bool).at[4:6, 5:7, 3:5].set(True)
    grid = occupancy.OccupancyGrid(occupied.astype(jnp.float32), occupied)

    def colour(x):
        inside = occupancy.occupied_at(grid, x)
        return 30.0 * inside, tint(x)

    size = {"height": 16, "width": 12, "samples_per_ray": 16, "occupancy": grid, "chunk": 2}
    picture = jax.jit(lambda: render(colour, CAMERA, None, **size))()
    skipped = jax.jit(lambda: render(colour, CAMERA, None, skip_empty=True, **size))()
    assert 0.05 < np.mean(picture.opacity > 0.5) < 0.5
    np.testing.assert_allclose(skipped.rgb, picture.rgb, atol=1e-5)
    np.testing.assert_allclose(skipped.directions, picture.directions, atol=1e-6)

    def everywhere(x):
        return jnp.full(len(x), 30.0), tint(x)

    plain = jax.jit(lambda: render(everywhere, CAMERA, None, skip_empty=True, **size))()
    assert np.mean(plain.opacity == 0) > 0.4  # chunks in which nothing is met were not computed


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="needs an occupancy grid"):
        render(fog, CAMERA, None, chunk=2, skip_empty=True, **SMALL)
    with pytest.raises(ValueError, match="6 rows do not split by 4"):
        render(fog, CAMERA, None, chunk=4, **SMALL)
    with pytest.raises(ValueError, match="normals_at"):
        render(fog, CAMERA, None, normals_at="voxels", **SMALL)


def test_seeds_together_equal_seeds_alone():
    """vmap over parameters, grids and keys of a real field, value and gradient."""
    field = RadianceField(levels=2, log2_entries=8, base_resolution=4, width=8)
    params, grids = [], []
    for seed in range(3):
        p = field.init(jax.random.key(seed), jnp.zeros((1, 3)))["params"]
        noise = jax.tree.map(lambda x: x + 0.3, p["HashGrid_0"])
        params.append(p | {"HashGrid_0": noise})
        density = jax.random.uniform(jax.random.key(seed), (8, 8, 8))
        grids.append(occupancy.OccupancyGrid(density, density > 0.4))

    @jax.jit
    def one(params, grid, key):
        def loss(params):
            def field_fn(x):
                return field.apply({"params": params}, x)

            picture = render(
                field_fn, CAMERA, key, occupancy=grid, interval=sampling.ray_ball,
                normals=finite_difference_normals, normals_at="surface", **SMALL,
            )  # fmt: skip
            return jnp.mean(picture.rgb**2) + 0.1 * jnp.mean(picture.normal), picture

        return jax.grad(loss, has_aux=True)(params)

    keys = jax.random.split(jax.random.key(9), 3)
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    together = jax.vmap(one)(jax.tree.map(stack, *params), jax.tree.map(stack, *grids), keys)
    for seed in range(3):
        alone = one(params[seed], grids[seed], keys[seed])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[seed], b, rtol=2e-4, atol=2e-5)


def _wall(points, at=0.1, width=0.004):
    """Density of a surface at z = `at`, of Laplace width, solid below."""
    d = points[:, 2] - at
    tail = 0.5 * jnp.exp(-jnp.abs(d) / width)
    return jnp.where(d > 0, tail, 1 - tail) / width


def test_a_proposal_finds_a_thin_surface_with_few_samples():
    """Colour is that of the depth at which rays end; the reference takes 4,000 samples."""

    def field(points):
        return _wall(points), jnp.stack([points[:, 2], 0 * points[:, 2], 0 * points[:, 2]], -1)

    origins = jnp.stack([jnp.linspace(-0.2, 0.2, 50), jnp.zeros(50), jnp.full(50, 2.0)], -1)
    towards = jnp.broadcast_to(jnp.asarray([0.0, 0.0, -1.0]), (50, 3))
    draw = partial(render_rays, field, origins, towards)
    dense = draw(None, samples_per_ray=4000)
    plain = draw(jax.random.key(0), samples_per_ray=32)
    guided = draw(jax.random.key(0), samples_per_ray=32, proposal=_wall)
    assert guided.weights.shape == (50, sampling.kept(32))

    def error(found):
        return float(jnp.mean(jnp.abs(found.rgb[:, 0] - dense.rgb[:, 0])))

    assert error(guided) < 0.004 < 0.015 < error(plain)


def test_with_a_proposal_opacity_stays_unbiased_where_it_sees_nothing():
    """A mean of optical depths: what the proposal overlooks is still there."""
    fog = lambda points: (jnp.full(len(points), 0.3), jnp.zeros((len(points), 3)))  # noqa: E731
    origins = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 2.0]), (4000, 3))
    towards = jnp.broadcast_to(jnp.asarray([0.0, 0.0, -1.0]), (4000, 3))
    found = render_rays(
        fog, origins, towards, jax.random.key(1), samples_per_ray=16,
        proposal=lambda points: jnp.where(points[:, 2] > 0.5, 2.0, 0.0),
    )  # fmt: skip
    depth = -jnp.log1p(-found.opacity)
    np.testing.assert_allclose(jnp.mean(depth), 0.6, rtol=0.02)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_colour_pulls_on_the_shape_by_its_share_alone(share):
    """The same picture; its colours have their gradient, density a share of it, opacity its own."""
    origins, towards = (x.reshape(-1, 3) for x in rays(CAMERA, 3, 3))
    pull = jnp.full(len(origins), share).at[0].set(1.0)

    def seen(density, albedo, pull):
        def field(x):
            return density * fog(x)[0], albedo * tint(x)

        return render_rays(field, origins, towards, None, samples_per_ray=9, pull=pull)

    def of(attribute):
        at = lambda pull: lambda *args: getattr(seen(*args, pull), attribute)  # noqa: E731
        return [jax.jacfwd(at(p), (0, 1))(1.0, 1.0) for p in (None, pull)]

    np.testing.assert_allclose(seen(1.0, 1.0, pull).rgb, seen(1.0, 1.0, None).rgb, atol=1e-6)
    (shape, colour), (less, same) = of("rgb")
    np.testing.assert_allclose(same, colour, rtol=1e-5)
    np.testing.assert_allclose(less, pull[:, None] * shape, rtol=1e-4, atol=1e-7)
    assert np.abs(shape).max() > 0.01
    (opaque, _), (still, _) = of("opacity")
    np.testing.assert_allclose(still, opaque, rtol=1e-6)
