"""From `objects.npz` to what the two training stages read: views, palettes, prompts, latents.

Letters: n objects (padded to a multiple of the devices), v views, k palettes, m wordings,
l tokens.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from dsd_jax.data import captions
from dsd_jax.data.objects import FOV_Y, Objects
from dsd_jax.data.palettes import TINTS, hue_range, hue_rotate, rotated_name, tint, tint_gain
from dsd_jax.data.pictures import ViewPlan
from dsd_jax.priors.latent import sees_opacity
from dsd_jax.priors.stable_diffusion import camera_embedding_input
from dsd_jax.priors.view_words import VIEWS
from dsd_jax.rendering.cameras import DISTANCE, orbit
from dsd_jax.rendering.scene import GREY

PHRASES = ("", *VIEWS)
# What needs no more than this to be lifted to a mean luma of 0.9 is white, else gray.
_WHITE_GAIN = 1.3


class Palettes(NamedTuple):
    """How object i looks in palette j: hue turned by angle[i, j], then times tint[i, j].

    Attributes:
        angle: [n, k] radians; 0 leaves the hue.
        tint: [n, k, 3].
        name: [n][k] the tint's name, or None.
        new_colour: [n][k] what the caption's one colour has become, or None.
    """

    angle: np.ndarray
    tint: np.ndarray
    name: list
    new_colour: list


def padded_indices(n: int, devices: int) -> np.ndarray:
    """0..n-1, then the last again until the length divides by `devices`."""
    return np.minimum(np.arange(-(-n // devices) * devices), n - 1)


def object_weights(categories: list[str], padded: int, exponent: float = 0.7) -> np.ndarray:
    """How often each object is drawn [padded]: rarer categories more often per object.

    A category of c objects is drawn in proportion to c ** exponent; padding gets 0.
    """
    count = Counter(categories)
    weights = np.zeros(padded, np.float32)
    weights[: len(categories)] = [count[c] ** (exponent - 1) for c in categories]
    return weights


def make_palettes(
    rng: np.random.Generator, data: Objects, k: int, tints: Iterable[str] = TINTS
) -> Palettes:
    """Palette 0 is the object's own; the rest turn its hue.

    What has no colour gets one of `tints`; its own palette is called white or gray.
    """
    n, names = len(data), sorted(tints)
    result = Palettes(
        np.zeros((n, k), np.float32), np.ones((n, k, 3), np.float32),
        [[None] * k for _ in range(n)], [[None] * k for _ in range(n)],
    )  # fmt: skip
    for i in range(n):
        colourless = data.colourless[i]
        found = captions.colours_of(data.caption[i])
        gain = tint_gain(data.triangles(i), data.colours(i)) if colourless else 1.0
        if colourless:
            result.name[i][0] = "white" if gain < _WHITE_GAIN else "gray"
        for j in range(1, k):
            if colourless:
                name = names[rng.integers(len(names))]
                result.name[i][j] = name
                result.tint[i, j] = gain * np.asarray(TINTS[name])
                continue
            reach = hue_range(data.category[i])
            angle = rng.uniform(0.15, 1.0) * reach * rng.choice([-1, 1])
            result.angle[i, j] = angle
            if len(found) == 1:
                result.new_colour[i][j] = rotated_name(
                    found[0], data.triangles(i), data.colours(i), angle
                )
    return result


def recolour(rgba, angle, factor, background=GREY, opacity: bool = False):
    """Premultiplied uint8 pictures [..., 4] in a palette, on `background` (0..1).

    Returns rgb [..., 3] in [-1, 1]; with `opacity` as a fourth channel.
    """
    rgba = rgba.astype(jnp.float32) / 255
    rgb = tint(hue_rotate(rgba[..., :3], angle), factor) + background * (1 - rgba[..., 3:])
    return (jnp.concatenate([rgb, rgba[..., 3:]], -1) if opacity else rgb) * 2 - 1


def wordings(rng: np.random.Generator, data: Objects, palettes: Palettes, m: int) -> list:
    """Prompts [n][k][m] of each object in each palette: half category, half caption.

    Half of the categories that could name a tint leave it out, so that "a car" has a colour.
    """

    def draw(i, j):
        name = palettes.name[i][j]
        short = captions.category_variants(data.category[i], tint=name)
        short += captions.category_variants(data.category[i]) if name and j else []
        long = captions.caption_variants(
            data.caption[i],
            recoloured=bool(palettes.angle[i, j]),
            new_colour=palettes.new_colour[i][j],
            tint=name,
        )
        pools = [short if slot < m // 2 else long or short for slot in range(m)]
        return [pool[rng.integers(len(pool))] for pool in pools]

    k = palettes.angle.shape[1]
    return [[draw(i, j) for j in range(k)] for i in range(len(data))]


def tokenise(tokenizer, prompts: list) -> np.ndarray:
    """Token ids [n, k, m, 5, l] int16 of prompts [n][k][m] under the five view phrases."""
    flat = sorted({p for rows in prompts for row in rows for p in row})
    number = {p: i for i, p in enumerate(flat)}
    texts = [captions.with_view(p, phrase) if phrase else p for p in flat for phrase in PHRASES]
    ids = tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
    )["input_ids"]
    table = np.asarray(ids, np.int16).reshape(len(flat), len(PHRASES), -1)
    rows = np.array([[[number[p] for p in row] for row in rows] for rows in prompts])
    return table[rows]


def view_inputs(views: ViewPlan, indices) -> tuple[np.ndarray, np.ndarray]:
    """The denoiser's camera input [n, v, 16] and the number of the view phrase [n, v]."""
    number = np.vectorize(lambda a, e: PHRASES.index(captions.view_phrase(a, e)))
    phrase = number(np.degrees(views.azimuth), np.degrees(views.elevation))
    matrices = orbit(views.azimuth, views.elevation, DISTANCE, FOV_Y).camera_to_world
    return np.asarray(camera_embedding_input(matrices))[indices], phrase.astype(np.int8)[indices]


def encode_views(mesh, model, params, rgba, angle, tint, background=GREY):
    """Unscaled latents [n, v, k, h, w, c] float16 of views [n, v, H, W, 4], sharded by object.

    `angle` [n, k] and `tint` [n, k, 3] as in `Palettes`; `background` as for `recolour`.
    """

    def one(params, rgba, angle, factor):
        pictures = recolour(rgba, angle, factor, background, sees_opacity(model))
        mean, _ = model.apply({"params": params}, pictures, method="encode")
        return mean.astype(jnp.float16)

    def palette_rows(params, rgba, angle, factor):
        rows = jax.lax.map(lambda a: one(params, rgba, *a), (angle, factor))
        return jnp.moveaxis(rows, 0, 1)

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("data"), P("data"), P("data")),
        out_specs=P("data"),
        check_vma=False,
    )
    def encode(params, rgba, angle, factor):
        return jax.lax.map(lambda a: palette_rows(params, *a), (rgba, angle, factor))

    return encode(params, rgba, angle, tint)


def deviation(latents) -> float:
    """The standard deviation of latents [n, v, k, h, w, c]: of some views, in their own palette."""
    return float(np.std(np.asarray(latents[::7, ::3, 0], np.float32)))
