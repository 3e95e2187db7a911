"""From `objects.npz` to what the two training stages read: views, palettes, prompts, latents.

Letters: n objects (padded to a multiple of the devices), v views, k palettes, m wordings,
l tokens.
"""

from collections import Counter
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from dsd_jax.data import captions
from dsd_jax.data.objects import DISTANCE, FOV_Y, Objects
from dsd_jax.data.pictures import ViewPlan
from dsd_jax.priors.stable_diffusion import camera_embedding_input
from dsd_jax.rendering.cameras import orbit
from dsd_jax.training.views import GREY

PHRASES = ("", "front view", "side view", "back view", "overhead view")


class Palettes(NamedTuple):
    """How object i looks in palette j: hue turned by angle[i, j], times tint[i, j].

    Attributes:
        angle: [n, k] radians.
        tint: [n, k, 3].
        name: [n][k] the tint's name, or None.
    """

    angle: np.ndarray
    tint: np.ndarray
    name: list


def padded_indices(n: int, devices: int) -> np.ndarray:
    """0..n-1, then the last again until the length divides by `devices`."""
    return np.minimum(np.arange(-(-n // devices) * devices), n - 1)


def object_weights(categories: list[str], padded: int, exponent: float = 0.5) -> np.ndarray:
    """How often each object is drawn [padded]: rarer categories more often per object.

    A category of c objects is drawn in proportion to c ** exponent; padding gets 0.
    """
    count = Counter(categories)
    weights = np.zeros(padded, np.float32)
    weights[: len(categories)] = [count[c] ** (exponent - 1) for c in categories]
    return weights


def make_palettes(rng: np.random.Generator, colourless, k: int) -> Palettes:
    """Palette 0 is the object's own; the rest turn its hue. What has no colour is tinted."""
    n = len(colourless)
    angle = rng.uniform(np.pi / 6, 2 * np.pi - np.pi / 6, (n, k)).astype(np.float32)
    angle[:, 0] = 0
    tint = np.ones((n, k, 3), np.float32)
    name: list = [[None] * k for _ in range(n)]
    names = sorted(captions.TINTS)
    for i in np.flatnonzero(colourless):
        angle[i] = 0
        for j in range(1, k):
            name[i][j] = names[rng.integers(len(names))]
            tint[i, j] = captions.TINTS[name[i][j]]
    return Palettes(angle, tint, name)


def recolour(rgba, angle, tint):
    """Premultiplied uint8 pictures [..., 4] in a palette, on grey: rgb [..., 3] in [-1, 1]."""
    rgba = rgba.astype(jnp.float32) / 255
    rgb = captions.hue_rotate(rgba[..., :3], angle) * tint
    return (rgb + GREY * (1 - rgba[..., 3:])) * 2 - 1


def wordings(data: Objects, palettes: Palettes, m: int) -> list:
    """Prompts [n][k][m] of each object in each palette, repeated cyclically to m."""
    result = []
    for i, (caption, category) in enumerate(zip(data.caption, data.category, strict=True)):
        rows = []
        for name, angle in zip(palettes.name[i], palettes.angle[i], strict=True):
            mode = "drop" if angle else "keep"
            options = captions.variants(caption, category, colour=mode, tint=name)
            rows.append([options[j % len(options)] for j in range(m)])
        result.append(rows)
    return result


def tokenise(tokenizer, prompts: list, indices: np.ndarray) -> np.ndarray:
    """Token ids [n, k, m, 5, l] int16 of prompts [n][k][m] under the five view phrases."""
    flat = sorted({p for rows in prompts for row in rows for p in row})
    number = {p: i for i, p in enumerate(flat)}
    texts = [captions.with_view(p, phrase) if phrase else p for p in flat for phrase in PHRASES]
    ids = tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
    )["input_ids"]
    table = np.asarray(ids, np.int16).reshape(len(flat), len(PHRASES), -1)
    rows = np.array([[[number[p] for p in row] for row in rows] for rows in prompts])
    return table[rows[indices]]


def view_inputs(views: ViewPlan, indices) -> tuple[np.ndarray, np.ndarray]:
    """The denoiser's camera input [n, v, 16] and the number of the view phrase [n, v]."""
    number = np.vectorize(lambda a, e: PHRASES.index(captions.view_phrase(a, e)))
    phrase = number(np.degrees(views.azimuth), np.degrees(views.elevation))
    matrices = orbit(views.azimuth, views.elevation, DISTANCE, FOV_Y).camera_to_world
    return np.asarray(camera_embedding_input(matrices))[indices], phrase.astype(np.int8)[indices]


def encode_views(mesh, model, params, rgba, palettes: Palettes):
    """Unscaled latents [n, v, k, h, w, c] float16 of views [n, v, H, W, 4], sharded by object."""

    def one(params, rgba, angle, tint):
        mean, _ = model.apply({"params": params}, recolour(rgba, angle, tint), method="encode")
        return mean.astype(jnp.float16)

    def palette_rows(params, rgba, angle, tint):
        rows = jax.lax.map(lambda a: one(params, rgba, *a), (angle, tint))
        return jnp.moveaxis(rows, 0, 1)

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("data"), P("data"), P("data")),
        out_specs=P("data"),
        check_vma=False,
    )
    def encode(params, rgba, angle, tint):
        return jax.lax.map(lambda a: palette_rows(params, *a), (rgba, angle, tint))

    return encode(params, rgba, palettes.angle, palettes.tint)
