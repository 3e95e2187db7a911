"""What a prior that reads prompts and has no camera is told of a view: "<prompt>, front view".

Letters: l d length and width of a text embedding. Angles in radians.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dsd_jax.guidance import ViewPrompts, blend_views
from dsd_jax.models.tokenizer import Tokenizer
from dsd_jax.priors.base import OVERHEAD, Viewpoint, ViewWords, angle_from_front

VIEWS = ("front view", "side view", "back view", "overhead view")


@struct.dataclass
class Text:
    """A prompt, embedded.

    Attributes:
        plain: [l, d] the prompt as it is.
        views: [4, l, d] the prompt with each of `VIEWS`.
        uncond: [l, d] the negative prompt.
        view_prompts: how a prior without camera is told of the view: blended, and pushed away from
            the views not seen ("perp-neg"); by one of `VIEWS` ("words"); not at all ("none").
    """

    plain: Float[Array, "l d"]
    views: Float[Array, "4 l d"]
    uncond: Float[Array, "l d"]
    view_prompts: ViewWords = struct.field(pytree_node=False, default="perp-neg")


_ENDINGS = tuple(f", {view}" for view in VIEWS)
_SHOWN = 40  # words of a line


def of_views(prompt: str) -> list[str]:
    """The prompt with each of `VIEWS`."""
    return [prompt + ending for ending in _ENDINGS]


def kept(tokenizer: Tokenizer, prompt: str, most: int) -> str:
    """As much of a prompt as leaves each of `VIEWS` uncut after it in `most` tokens."""
    return tokenizer.beginning(prompt, _ENDINGS, most)


def cut_off(
    tokenizer: Tokenizer, prompt: str, most: int, with_views: bool, what: str = "prompt"
) -> list[str]:
    """What is not read of a prompt, and of `VIEWS` after it if `with_views`: none or one line."""
    length = tokenizer.length(most)
    if with_views and max(tokenizer.counts(list(_ENDINGS))) > length:
        return [f'the prior reads {length} tokens, too few for words such as ", {VIEWS[0]}"']
    start = tokenizer.beginning(prompt, _ENDINGS if with_views else [""], most)
    words = prompt[len(start) :].split()
    if not words:
        return []
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    left = ", the view's words among them" if with_views else ""
    return [
        f"the {what} is longer than the {length} tokens that the prior reads{left}; not read are "
        f'the words "{" ".join(words[:_SHOWN])}"{more}'
    ]


def view_index(viewpoint: Viewpoint) -> jax.Array:
    """Index into `VIEWS`: within 45 degrees of the front, of the back, above 60, or from a side."""
    azimuth = angle_from_front(viewpoint.azimuth)
    index = jnp.where(azimuth < jnp.pi / 4, 0, jnp.where(azimuth > 3 * jnp.pi / 4, 2, 1))
    return jnp.where(viewpoint.elevation > OVERHEAD, 3, index)


def blend(text: Text, viewpoint: Viewpoint) -> ViewPrompts:
    """The authors' Perp-Neg prompts for one view, continuous in its azimuth (arXiv 2304.04968)."""
    front, side, back, overhead = text.views
    angles_deg = jnp.rad2deg(viewpoint.azimuth), jnp.rad2deg(viewpoint.elevation)
    return blend_views(side, front, back, overhead, *angles_deg)


def words_for(text: Text, viewpoint: Viewpoint) -> Float[Array, "l d"]:
    """The embedded prompt for one view, as `view_prompts` says, without Perp-Neg's negatives."""
    if text.view_prompts == "perp-neg":
        return blend(text, viewpoint).text
    return text.views[view_index(viewpoint)] if text.view_prompts == "words" else text.plain
