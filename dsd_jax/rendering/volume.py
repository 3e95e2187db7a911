"""Volume rendering of one camera (Max 1995, as in NeRF).

Letters: h w pixels, r rays, s samples a ray, n = r s points, f features, of which the first three
are albedo. With optical depths tau_i = sigma_i delta_i (delta: see `sampling`),

    transmittance T_i = exp(-sum_{j<i} tau_j),  weight w_i = T_i (1 - exp(-tau_i)),
    opacity = sum_i w_i = 1 - exp(-sum_i tau_i),  rgb = sum_i w_i c_i + (1 - opacity) background.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.fields.background import GREY, constant_background
from dsd_jax.fields.hash_grid import ENCODING
from dsd_jax.fields.radiance import FieldFn, analytic_normals, finite_difference_normals
from dsd_jax.rendering import occupancy as occupancy_grid
from dsd_jax.rendering import sampling
from dsd_jax.rendering.cameras import Camera, rays
from dsd_jax.rendering.chunks import in_chunks, where_met
from dsd_jax.rendering.occupancy import OccupancyGrid
from dsd_jax.rendering.shading import PointLight, illumination, surface_colour

Proposal = Callable[[Array], Array]
NormalsFn = Callable[[FieldFn, Array], tuple[Array, Array, Array]]


class Rendering(NamedTuple):
    """A rendered view.

    Attributes:
        rgb: [h, w, 3] colour over the background.
        opacity: [h, w] in [0, 1].
        depth: [h, w] expected distance along the ray, given that it is absorbed; 0 where it is not.
        normal: [h, w, 3] unit world normal, 0 where there is no matter; None if not asked for.
        weights, distances, deltas: [h, w, s] w_i, t_i and delta_i of the samples.
        directions: [h, w, 3] unit ray directions.
        sample_normals: [h, w, s, 3], None unless computed at the samples.
    """

    rgb: Float[Array, "h w 3"]
    opacity: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    normal: Float[Array, "h w 3"] | None
    weights: Float[Array, "h w s"]
    distances: Float[Array, "h w s"]
    deltas: Float[Array, "h w s"]
    directions: Float[Array, "h w 3"]
    sample_normals: Float[Array, "h w s 3"] | None


def absorption(
    density: Float[Array, "... s"], deltas: Float[Array, "... s"]
) -> tuple[Float[Array, "... s"], Float[Array, "..."]]:
    """Weights [..., s] and opacity [...] of samples ordered front to back."""
    tau = density * deltas
    through = jnp.cumsum(tau, -1)
    weights = jnp.exp(tau - through) * -jnp.expm1(-tau)
    return weights, -jnp.expm1(-through[..., -1])


def render(
    field_fn: FieldFn,
    camera: Camera,
    key: jax.Array | None,
    *,
    height: int,
    width: int,
    samples_per_ray: int = 64,
    occupancy: OccupancyGrid | None = None,
    proposal: Proposal | None = None,
    background=GREY,
    shading: PointLight | None = None,
    normals: NormalsFn | None = None,
    normals_at: Literal["samples", "surface"] = "samples",
    interval: Callable[[Array, Array], sampling.Interval] = sampling.ray_box,
    chunk: int | None = None,
    skip_empty: bool = False,
    offset=(0.0, 0.0),
) -> Rendering:
    """Render one view; jit it, vmap it over seeds or cameras, differentiate it by the field.

    Args:
        field_fn: points [n, 3] -> (density [n], features [n, f]).
        key: jitters the samples inside their strata; None puts them in the middle (final pictures).
        samples_per_ray: evaluations of the field a ray, with or without an occupancy grid.
        occupancy: draws the samples where this grid says that there is matter (else uniformly).
        proposal: density [n] of points [n, 3] for less than `field_fn`; with one it is asked at
            all samples, and `field_fn` at `sampling.kept` of them, where they are seen.
        background: grey level, [3] colour, or a function of directions [r, 3] -> rgb [r, 3].
        shading: a point light; None is plain albedo.
        normals: `analytic_normals` or `finite_difference_normals`; None computes normals only if
            a light needs them: finite differences at the surface, analytic ones at samples.
        normals_at: "samples" shades every sample; "surface" computes one normal a ray, where a
            tenth of what it loses is lost, and lights the composited albedo with it: cheaper by
            far, and smoother.
        interval: part of each ray that is sampled: `ray_box`, or `ray_ball` for fields that are
            zero outside the unit ball.
        chunk: render this many rows at a time and compute all but the hash grid's features again
            for the gradient, so that memory stays small; on a CPU blocks of about 2^14 points are
            also the fastest. Must divide height.
        skip_empty: the rays that meet an occupied cell go first, and chunks of rays of which none
            does show the background, uncomputed. For pictures: what is learned has to see matter
            appear where there is none.
        offset: of the rays from the pixels' centres, see `cameras.rays`.

    Raises:
        ValueError: chunk does not divide height, normals_at is unknown, or skip_empty lacks the
            occupancy grid or the chunk.
    """
    if chunk is not None and (chunk < 1 or height % chunk):
        raise ValueError(f"chunk must divide the height: {height} rows do not split by {chunk}")
    if normals_at not in ("samples", "surface"):
        raise ValueError(f'normals_at must be "samples" or "surface", not {normals_at!r}')
    if not callable(background):
        background = constant_background(background)
    if normals is None and shading is not None:
        normals = analytic_normals if normals_at == "samples" else finite_difference_normals
    origins, directions = rays(camera, height, width, offset)
    u = _numbers(key, (height, width, samples_per_ray), proposal)

    def block(inputs, field_fn=field_fn):
        origins, directions, *u = inputs
        distances, deltas = _place(origins, directions, u, occupancy, interval, proposal)
        return _render_rays(
            field_fn, origins, directions, distances, deltas,
            background(directions), shading, normals, normals_at,
        )  # fmt: skip

    inputs = [x.reshape(height * width, -1) for x in (origins, directions, *u)]
    if skip_empty:
        if occupancy is None or chunk is None:
            raise ValueError("skip_empty needs an occupancy grid and a chunk")
        near, far = interval(inputs[0], inputs[1])
        met = occupancy_grid.is_met(occupancy, inputs[0], inputs[1], near, far)
        flat = where_met(block, met, inputs, height // chunk)
    elif chunk is None or chunk == height:
        flat = block(inputs)
    else:
        saved = jax.checkpoint_policies.save_only_these_names(ENCODING)
        flat = in_chunks(jax.checkpoint(block, policy=saved), inputs, height // chunk)
    return jax.tree.map(lambda x: x.reshape(height, width, *x.shape[1:]), flat)


def render_rays(
    field_fn: FieldFn,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    key: jax.Array | None,
    *,
    samples_per_ray: int,
    occupancy: OccupancyGrid | None = None,
    proposal: Proposal | None = None,
    background=GREY,
    interval: Callable[[Array, Array], sampling.Interval] = sampling.ray_box,
    pull: Float[Array, " r"] | None = None,
) -> Rendering:
    """Single rays, of any cameras, unshaded: a Rendering with one leading axis r instead of h, w.

    Args:
        directions: of unit length.
        pull: share of the colour's gradient that reaches the density (None: all of it).
        field_fn, key, samples_per_ray, occupancy, proposal, background, interval: as in `render`.
    """
    if not callable(background):
        background = constant_background(background)
    u = _numbers(key, (origins.shape[0], samples_per_ray), proposal)
    distances, deltas = _place(origins, directions, u, occupancy, interval, proposal)
    return _render_rays(
        field_fn, origins, directions, distances, deltas, background(directions), None, None,
        "samples", pull,
    )  # fmt: skip


def _numbers(key, shape: tuple[int, ...], proposal: Proposal | None) -> list[Array]:
    """What places the samples, [..., s], and if they are placed twice those of the second time."""
    first = sampling.strata(key, shape)
    if proposal is None:
        return [first]
    again = None if key is None else jax.random.fold_in(key, 1)
    return [first, sampling.strata(again, (*shape[:-1], sampling.kept(shape[-1])))]


def _place(origins, directions, u: list[Array], occupancy, interval, proposal):
    """Distances [r, s] and deltas [r, s] of the samples; constants for differentiation."""
    near, far = interval(origins, directions)
    place = partial(sampling.place_uniformly, near, far)
    if occupancy is not None:
        weights = occupancy_grid.ray_weights(occupancy, origins, directions, near, far)
        place = partial(sampling.place_by_weights, near, far, weights=weights)
    distances, deltas = place(u[0])
    if proposal is not None:
        points = origins[:, None] + distances[..., None] * directions[:, None]
        density = proposal(points.reshape(-1, 3)).reshape(distances.shape)
        mass, part = sampling.where_seen(absorption(density, deltas)[0], u[1])
        distances, deltas = place(mass)
        deltas = deltas * part * mass.shape[-1]
    return jax.lax.stop_gradient((distances, deltas))


def _render_rays(
    field_fn, origins, directions, distances, deltas, background, shading, normals, normals_at,
    pull=None,
) -> Rendering:  # fmt: skip
    """A Rendering whose leaves have one leading axis r instead of h, w."""
    shape = distances.shape
    points = origins[:, None] + distances[..., None] * directions[:, None]
    flat = points.reshape(-1, 3)
    sample_normals = None
    if normals is not None and normals_at == "samples":
        density, features, sample_normals = normals(field_fn, flat)
        sample_normals = sample_normals.reshape(*shape, 3)
    else:
        density, features = field_fn(flat)
    weights, opacity = absorption(density.reshape(shape), deltas)
    depth = jnp.sum(weights * distances, -1) / jnp.maximum(opacity, 1e-6)
    colours = features.reshape(*shape, -1)[..., :3]
    normal, light = None, 1.0
    if sample_normals is not None:
        normal = _normalised(jnp.sum(weights[..., None] * sample_normals, -2))
        if shading is not None:
            colours = surface_colour(shading, colours)
            colours = colours * illumination(shading, points, sample_normals)[..., None]
    elif normals is not None:
        at = _surface(origins, directions, weights, distances, deltas)
        normal = normals(field_fn, at)[2] * (opacity > 0)[:, None]
        if shading is not None:
            colours = surface_colour(shading, colours)
            light = illumination(shading, at, normal)[:, None]
    share, seen = (weights, opacity) if pull is None else _pulled(pull, weights, opacity)
    rgb = jnp.sum(share[..., None] * colours, -2) * light
    rgb = rgb + (1 - seen)[:, None] * background
    return Rendering(
        rgb, opacity, depth, normal, weights, distances, deltas, directions, sample_normals
    )


def _pulled(pull: Float[Array, " r"], weights, opacity) -> tuple[Array, Array]:
    """The same values, whose gradient is `pull` times theirs."""

    def scaled(values, pull):
        held = jax.lax.stop_gradient(values)
        return held + pull * (values - held)

    return scaled(weights, pull[:, None]), scaled(opacity, pull)


def _surface(origins, directions, weights, distances, deltas, part: float = 0.1):
    """Points [r, 3] where `part` of what a ray loses is lost; constants for differentiation.

    Early on purpose: further in, at the expected depth, density has levelled off and its gradient
    is noise.
    """
    absorbed = jnp.cumsum(weights, -1)
    target = part * absorbed[:, -1:]
    index = jnp.argmax(absorbed >= target, -1)[:, None]
    weight, distance, delta, after = (
        jnp.take_along_axis(x, index, -1) for x in (weights, distances, deltas, absorbed)
    )
    within = 1 - (after - target) / jnp.maximum(weight, 1e-10)
    along = distance + (jnp.clip(within, 0, 1) - 0.5) * delta
    return jax.lax.stop_gradient(origins + along * directions)


def _normalised(vectors: Float[Array, "r 3"]) -> Float[Array, "r 3"]:
    """Unit vectors; (nearly) zero ones stay zero, and their gradient finite."""
    squared = jnp.sum(vectors * vectors, -1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
