"""New colours for old objects: hue rotation, tints, and what the result is called.

Angles are radians, rgb is sRGB in [0, 1]. `hue_rotate` and `tint` run in JAX on pictures; the
rest is NumPy on one object (triangles [f, 3, 3], colours of faces [f, 3]).
"""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TINTS = {
    "red": (0.85, 0.15, 0.12),
    "orange": (0.95, 0.52, 0.12),
    "yellow": (0.96, 0.83, 0.20),
    "green": (0.25, 0.62, 0.25),
    "teal": (0.15, 0.62, 0.60),
    "blue": (0.18, 0.38, 0.85),
    "purple": (0.52, 0.25, 0.72),
    "pink": (0.95, 0.52, 0.70),
    "brown": (0.50, 0.32, 0.18),
    "black": (0.12, 0.12, 0.13),
    "gray": (0.55, 0.55, 0.55),
    "white": (1.00, 1.00, 1.00),
}


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# People, animals, plants and food look wrong in just any colour.
NATURAL = word_set(
    "alpaca apple astronaut avocado bacon banana bear bee bird bread broccoli burger bush butter "
    "cactus cake candy carrot cat cheese chicken cookie corn cow crab cream cupcake deer dinosaur "
    "dog dolphin donkey donut drink egg fish flower food fox fries frog fruit grass hay hedge hill "
    "horse human insect knight llama log meat monkey mountain mushroom mussel pancakes person pie "
    "pig pizza planter plant pudding rabbit rat rock sandwich sausage shark sheep skeleton snake "
    "snowman spider stone sushi taco tree vegetable waffle whale wheat wolf worm zebra zombie"
)

_HUES = (  # name, hue from and to in degrees, least saturation, least and largest value (HSV)
    ("red", -11, 11, 0.5, 0.4, 1.0),
    ("brown", 12, 40, 0.3, 0.2, 0.5),
    ("orange", 16, 30, 0.5, 0.6, 1.0),
    ("yellow", 38, 62, 0.45, 0.6, 1.0),
    ("green", 72, 158, 0.25, 0.2, 1.0),
    ("teal", 166, 184, 0.3, 0.3, 1.0),
    ("blue", 198, 250, 0.3, 0.3, 1.0),
    ("purple", 260, 292, 0.25, 0.3, 1.0),
    ("pink", 308, 345, 0.3, 0.65, 1.0),
)
_SAME = {"golden": "yellow", "gold": "yellow", "turquoise": "teal", "cyan": "teal"}
_SAME |= {"tan": "brown", "bronze": "brown", "reddish": "red"}
_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709


def hue_rotate(
    rgb: Float[Array, "*batch 3"], angle: float | Float[Array, ""]
) -> Float[Array, "*batch 3"]:
    """Colours turned about the grey axis by `angle` radians at constant luma, clipped to [0, 1].

    Greys stay; at 2 pi / 3 red goes towards green. The map is linear before clipping, so that it
    may be applied to rendered pictures, premultiplied by alpha or already on a grey background.
    """
    return jnp.clip(jnp.einsum("ij,...j->...i", _turn(angle), rgb, precision="highest"), 0, 1)


def tint(
    rgb: Float[Array, "*batch 3"], colour: Float[Array, "3"], gain: float | jax.Array = 1.0
) -> Float[Array, "*batch 3"]:
    """Colours multiplied by `colour` and `gain`, clipped to [0, 1]; for premultiplied rgb too.

    `gain` lifts an object that is not white to begin with: `tint_gain`.
    """
    return jnp.clip(rgb * (colour * gain), 0, 1)


def hue_range(category: str) -> float:
    """Largest hue rotation, radians, that leaves an object of this category believable."""
    return 0.3 if _is_natural(category) else float(np.pi)


def tint_gain(triangles: np.ndarray, rgb: np.ndarray) -> float:
    """Factor, 1 to 6, that lifts the mean luma of an object's surface to 0.9 before a tint."""
    area = _areas(triangles)
    luma = float(area @ (rgb @ np.array(_LUMA)) / area.sum())
    return float(np.clip(0.9 / max(luma, 1e-6), 1, 6))


def colour_name(rgb) -> str | None:
    """Plain name of a colour, one of nine; None for greys and for what lies between two names."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) for c in rgb))
    degrees = 360 * hue
    for name, low, high, least, dark, bright in _HUES:
        fits = low <= degrees <= high or low <= degrees - 360 <= high
        if fits and saturation >= least and dark <= value <= bright:
            return name
    return None


def dominant_colour(triangles: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """The hue that covers most of an object's surface: its mean rgb [3], and its share of it.

    Greyish faces count for nothing, but for the share; without any other the share is 0.
    """
    area = _areas(triangles)
    palette, face = np.unique(rgb, axis=0, return_inverse=True)
    hsv = np.array([colorsys.rgb_to_hsv(*c) for c in palette])[face.ravel()]
    weight = area * (hsv[:, 1] > 0.2)
    apart = np.abs((hsv[:, :1] - np.arange(36) / 36 + 0.5) % 1 - 0.5)  # [f, 36], in turns
    near = (apart < 25 / 360) * weight[:, None]
    best = near[:, near.sum(0).argmax()]
    total = best.sum()
    if not total > 0:
        return np.zeros(3), 0.0
    return best @ rgb / total, float(total / area.sum())


def rotated_name(
    caption_colour: str, triangles: np.ndarray, rgb: np.ndarray, angle: float
) -> str | None:
    """What the caption's one colour has to be called after a hue rotation; None where unclear.

    Clear is: the dominant hue covers half the surface, bears the caption's name before the
    rotation, and a plain name after it.
    """
    mean, share = dominant_colour(triangles, rgb)
    before = _SAME.get(caption_colour, caption_colour)
    if share < 0.5 or colour_name(mean) != before:
        return None
    return colour_name(np.clip(_turn(angle, np) @ mean, 0, 1))


def _turn(angle, numpy=jnp):
    """Matrix [3, 3] of the hue rotation, by JAX or NumPy.

    A turn about (1, 1, 1) (Rodrigues), then a shift along it that gives the luma back.
    """
    cos, sin = numpy.cos(angle), numpy.sin(angle)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / np.sqrt(3)
    eye, luma = np.eye(3, dtype=np.float32), np.array(_LUMA, np.float32)
    turn = cos * eye + (1 - cos) * np.full((3, 3), 1 / 3, np.float32) + sin * cross
    return turn + luma @ (eye - turn)


def _is_natural(category: str) -> bool:
    return any(word in NATURAL for word in category.split())


def _areas(triangles: np.ndarray) -> np.ndarray:
    """Twice the area of each face, never zero."""
    v0 = triangles[:, 0]
    return np.linalg.norm(np.cross(triangles[:, 1] - v0, triangles[:, 2] - v0), axis=1) + 1e-12
