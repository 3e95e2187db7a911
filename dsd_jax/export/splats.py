"""A seed's field as Gaussian splats: started on its surface, fitted to its own pictures.

    result = make_splats(field_of(load_scene(folder)), cameras)
    result.save("splats.ply")

Letters: n splats, v views, s sides, h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from dsd_jax.export import splat_files, texture
from dsd_jax.export.field_grid import DEVICES, ExportedField, field_views
from dsd_jax.export.mesh import MeshSettings, placement, surface_of
from dsd_jax.rendering import splats as rendering
from dsd_jax.rendering.agreement import psnr
from dsd_jax.rendering.cameras import Camera, orbit
from dsd_jax.rendering.scene import GREY
from dsd_jax.rendering.splats import Splats

_TILE = 8
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class SplatSettings:
    """How splats are fitted.

    Attributes:
        count: of splats; it stays.
        steps: of Adam, each on tiles of one view.
        views: that they are fitted to, from all around the object.
        size, samples: of these pictures, in pixels, and of their rays.
        tiles: of a view that a step sees, at random among those with splats.
    """

    count: int = 20_000
    steps: int = 250
    views: int = 24
    size: int = 160
    samples: int = 48
    tiles: int = 128

    @property
    def most(self) -> int:
        """Splats of a tile that a step sees, the nearest: what lies behind them is hidden."""
        return 64 * max(1, round(self.count / 5000))


class SplatResult(NamedTuple):
    """Splats and what is known of them.

    Attributes:
        splats: NumPy's, in the coordinates of the seed's mesh: y up, the longest side 1 long, the
            middle of the base at the origin.
        scale, origin: these are scale * (world - origin).
        psnr: [v] of pictures of splats and field before grey, from views that no splat was fitted
            to, decibels.
    """

    splats: Splats
    scale: float
    origin: Float[np.ndarray, "3"]
    psnr: Float[np.ndarray, "v"]

    def save(self, path: str | Path) -> None:
        """Write it as a PLY, see `splat_files`. Raises ValueError where `path` does not end so."""
        splat_files.save(path, self.splats)

    def summary(self) -> str:
        """One line for people."""
        return f"{len(self.splats.logits)} splats, {self.psnr.mean():.1f} dB"

    def report(self) -> dict[str, Any]:
        """What splats.json holds."""
        return {
            "splats": len(self.splats.logits),
            "psnr_db": self.psnr.tolist(),
            "scale": self.scale,
            "origin": self.origin.tolist(),
        }


def make_splats(
    field: ExportedField, cameras: Camera, settings: SplatSettings = SplatSettings()
) -> SplatResult:
    """Splats of a field; `cameras`, v of them stacked, are those that the two are compared from.

    Nothing is fitted to their views.

    Raises ValueError where the field is empty.
    """
    surface = surface_of(field, cameras, MeshSettings())
    started = on_surface(field, surface.vertices, surface.faces, surface.normals, settings.count)
    around = all_around(cameras, settings.views)
    seen = field_views(field, surface.grid, around, settings.size, settings.samples)
    targets = np.concatenate([seen[0], seen[1][..., None]], -1)
    with DEVICES:
        fitted = jax.device_get(_fit(started, targets, around, settings))
        views = jax.device_get(_views(fitted, cameras, surface.rgb.shape[-2], 2 * settings.most))
    scale, origin = placement(surface.vertices, field.shape)
    agreed = psnr(views[..., :3], surface.rgb)
    return SplatResult(to_unit(fitted, scale, origin), scale, origin, agreed)


def all_around(cameras: Camera, count: int) -> Camera:
    """So many cameras about the origin, as far from it as the first of `cameras`, evenly spread
    over elevations of -30 to 72 degrees."""
    pose = np.asarray(cameras.camera_to_world)[0]
    index = np.arange(count)
    elevation = np.arcsin(-0.5 + 1.45 * (index + 0.5) / count)
    azimuth = _GOLDEN_ANGLE * (index + 0.5)
    return orbit(azimuth, elevation, np.linalg.norm(pose[:3, 3]), np.asarray(cameras.fov_y)[0], np)


def on_surface(field: ExportedField, vertices, faces, normals, count: int) -> Splats:
    """Flat splats, evenly spread over a surface in world coordinates, with the field's colours."""
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(*(corners[:, 1:] - corners[:, :1]).swapaxes(0, 1)), axis=1) / 2
    index = np.arange(count)
    face = np.searchsorted(np.cumsum(area), (index + 0.5) / count * area.sum())
    face = np.minimum(face, len(faces) - 1)
    # Roberts's R2 sequence, folded into the triangle
    a, b = (index * 0.7548776662466927) % 1, (index * 0.5698402909980532) % 1
    a, b = np.where(a + b > 1, [1 - a, 1 - b], [a, b])
    weights = np.stack([1 - a - b, a, b], -1)[..., None]
    centres = (corners[face] * weights).sum(1)
    normal = (normals[faces[face]] * weights).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    apart = np.sqrt(area.sum() / count)
    scales = np.tile(np.log(apart * np.array([0.7, 0.7, 0.2])), (count, 1))
    colours = texture.surface_albedo(field, centres, normal)
    logits = np.full(count, 2.0)
    parts = centres, scales, _turned(normal), logits, colours
    return Splats(*(np.asarray(part, np.float32) for part in parts))


def _turned(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    """Quaternions that turn +z to the normals."""
    from scipy.spatial.transform import Rotation

    x, y, z = normals.T
    polar, azimuth = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    xyzw = Rotation.from_euler("ZY", np.stack([azimuth, polar], -1)).as_quat()
    return np.roll(xyzw, 1, axis=1)


def to_unit(splats: Splats, scale: float, origin: Sequence[float] | np.ndarray) -> Splats:
    """From world coordinates to scale * (world - origin)."""
    return splats._replace(
        centres=(splats.centres - np.asarray(origin)) * scale,
        log_scales=splats.log_scales + np.log(scale),
    )


def to_world(splats: Splats, scale: float, origin: Sequence[float]) -> Splats:
    """The inverse of `to_unit`."""
    return splats._replace(
        centres=splats.centres / scale + np.asarray(origin),
        log_scales=splats.log_scales - np.log(scale),
    )


@partial(jax.jit, static_argnames=("size", "most"))
def _views(splats: Splats, cameras: Camera, size: int, most: int):
    return jax.lax.map(lambda camera: rendering.render(splats, camera, size, _TILE, most), cameras)


# Adam's rates; that of the centres is in units of the splats' size at first.
_RATES = Splats(*np.array([0.05, 0.02, 0.01, 0.05, 0.01], np.float32))
_LAST_RATE = 0.05
# A splat grows to so many times its first size at most: it has to be drawn in 3 x 3 tiles.
_GROWTH = 2.0


@partial(jax.jit, static_argnames="settings")
def _fit(splats: Splats, targets, cameras: Camera, settings: SplatSettings) -> Splats:
    """Adam on the squared error of colour and opacity.

    The background is of another colour every step: else splats at the rims would have some of it.
    """
    side = settings.size // _TILE
    tiled = jnp.reshape(targets, (-1, side, _TILE, side, _TILE, 4)).swapaxes(2, 3)
    tiled = tiled.reshape(-1, side * side, _TILE, _TILE, 4)
    first = jnp.max(splats.log_scales)
    rates = _RATES._replace(centres=_RATES.centres * jnp.exp(first))
    adam = optax.adam(optax.exponential_decay(1.0, settings.steps, _LAST_RATE), eps=1e-12)

    def loss(splats, view, key):
        camera = jax.tree.map(lambda leaf: leaf[view], cameras)
        flat = rendering.flatten(splats, camera, settings.size)
        inside, counts = rendering.members(flat, settings.size, _TILE, settings.most)
        tile_key, background_key = jax.random.split(key)
        chance = jnp.where(counts > 0, jax.random.uniform(tile_key, counts.shape), -1.0)
        tiles = jax.lax.top_k(chance, min(settings.tiles, side * side))[1]
        background = jax.random.uniform(background_key, (3,))
        drawn = rendering.draw(flat, inside[tiles], tiles, settings.size, _TILE, background)
        rgb, opacity = jnp.split(tiled[view][tiles], [3], -1)
        rgb = rgb + (1 - opacity) * (background - GREY)
        return jnp.square(drawn - jnp.concatenate([rgb, opacity], -1)).mean()

    def step(carry, i):
        splats, state = carry
        view_key, key = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        view = jax.random.randint(view_key, (), 0, settings.views)
        updates, state = adam.update(jax.grad(loss)(splats, view, key), state)
        splats = jax.tree.map(lambda x, u, rate: x + rate * u, splats, updates, rates)
        log_scales = jnp.minimum(splats.log_scales, first + jnp.log(_GROWTH))
        return (splats._replace(log_scales=log_scales), state), None

    begun = jax.tree.map(jnp.asarray, splats)
    steps = jnp.arange(settings.steps)
    return jax.lax.scan(step, (begun, adam.init(begun)), steps)[0][0]
