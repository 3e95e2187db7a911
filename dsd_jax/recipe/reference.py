"""The reference view: how far an object is from the picture that it was made of, seen as there.

Letters: h w pixels of a rendering, s side of the picture. The terms are those of threestudio's
Zero-1-to-3 and Magic123 configurations.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.recipe.fitting_parts import ReferenceSettings
from dsd_jax.recipe.parts import CameraSettings
from dsd_jax.recipe.viewpoints import Reference, viewpoint_at
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.volume import Rendering


def camera_of(
    elevation: Float[Array, ""], cameras: CameraSettings, azimuth: Float[Array, ""] | None = None
) -> Camera:
    """The camera that took a picture, in the run's framing: the first one's at azimuth 0."""
    azimuth = jnp.zeros_like(elevation) if azimuth is None else azimuth
    return viewpoint_at(azimuth, elevation, cameras)[1]


def distance(
    rendering: Rendering, picture: Reference, camera: Camera, weights: ReferenceSettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the terms below, and each unweighted; a weight of 0 leaves a term out.

    Args:
        rendering: of one view, over the background that the picture has.
        picture: of the rendering's size, see `part_of`.
        camera: of that view.
    """
    _, rgb, mask, depth, normal = picture
    terms = {
        "colour": lambda: colour(rendering.rgb, rgb),
        "mask": lambda: colour(rendering.opacity, mask),
    }
    if depth is not None:
        terms["depth"] = lambda: uncorrelated(along_axis(rendering, camera), depth, mask)
    if normal is not None:
        terms["normal"] = lambda: turned(in_camera(rendering, camera), normal, mask)
    found = {name: term() for name, term in terms.items() if getattr(weights, name)}
    weighted = [getattr(weights, name) * value for name, value in found.items()]
    return sum(weighted, jnp.zeros(())), {f"reference_{k}": v for k, v in found.items()}


def part_of(picture: Reference, side: int, key: jax.Array) -> tuple[Reference, Float[Array, "2"]]:
    """Every k-th pixel of the picture from a random one on, k = s / side, at least 1.

    So a rendering of side x side pixels is compared with pixels of the full picture, and over the
    steps with all of them. What s does not divide by is resized first.

    Returns:
        The picture with maps of side x side pixels; where in a rendering's pixel these are, as
        `cameras.rays` takes it.
    """
    k = max(1, picture.mask.shape[0] // side)
    first = jax.random.randint(key, (2,), 0, k)

    def part(map):
        fine = resized(map, (k * side, k * side))
        fine = fine.reshape(side, k, side, k, *map.shape[2:])
        return fine[:, first[0], :, first[1]]

    maps = {name: getattr(picture, name) for name in ("rgb", "mask", "depth", "normal")}
    maps = {name: part(map) for name, map in maps.items() if map is not None}
    return picture._replace(**maps), (first + 0.5) / k - 0.5


def resized(picture: Float[Array, "s s *k"], shape: tuple[int, ...]) -> Float[Array, "h w *k"]:
    """Bilinear, each pixel of a smaller picture the mean of what it covers."""
    return jax.image.resize(picture, (*shape, *picture.shape[2:]), "linear")


def colour(ours: Float[Array, "h w *k"], theirs: Float[Array, "h w *k"]) -> jax.Array:
    """Mean squared difference."""
    return jnp.mean(jnp.square(ours - theirs))


def uncorrelated(
    ours: Float[Array, "h w"], theirs: Float[Array, "h w"], mask: Float[Array, "h w"]
) -> jax.Array:
    """One minus Pearson's correlation inside the mask (above 1/2).

    0 for ours = a theirs + b with a > 0: scale and offset of a depth estimated from one picture are
    unknown. 1 where either is constant.
    """
    inside = (mask > 0.5).astype(ours.dtype)
    count = jnp.maximum(jnp.sum(inside), 1)

    def centred(x):
        return inside * (x - jnp.sum(inside * x) / count)

    a, b = centred(ours), centred(theirs)
    both = jnp.sum(a * a) * jnp.sum(b * b)
    return 1 - jnp.sum(a * b) * jax.lax.rsqrt(jnp.maximum(both, 1e-12))


def turned(
    ours: Float[Array, "h w 3"], theirs: Float[Array, "h w 3"], mask: Float[Array, "h w"]
) -> jax.Array:
    """One minus the mean cosine between vectors inside the mask; `theirs` of any length."""
    length = jnp.linalg.norm(theirs, axis=-1)
    inside = (mask > 0.5) & (length > 0)
    cosine = jnp.sum(ours * theirs, -1) / jnp.maximum(length, 1e-6)
    return jnp.sum(jnp.where(inside, 1 - cosine, 0)) / jnp.maximum(jnp.sum(inside), 1)


def along_axis(rendering: Rendering, camera: Camera) -> Float[Array, "h w"]:
    """Depth along the optical axis, as depth maps have it, of a rendering's depth along rays."""
    backward = camera.camera_to_world[:3, 2]
    toward = jnp.einsum("hwi,i->hw", rendering.directions, backward, precision="highest")
    return -rendering.depth * toward


def in_camera(rendering: Rendering, camera: Camera) -> Float[Array, "h w 3"]:
    """Normals in the camera's frame: x to the right, y up, z to the viewer."""
    rotation = camera.camera_to_world[:3, :3]
    return jnp.einsum("ji,hwj->hwi", rotation, rendering.normal, precision="highest")
