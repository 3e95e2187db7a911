"""A scene: one radiance field before a background, with all their parameters in one pytree.

Letters: h w height and width of a picture, n points or directions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dsd_jax.fields.background import DirectionalBackground, LearnedColour
from dsd_jax.fields.radiance import FieldFn, RadianceField
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.sampling import ray_ball
from dsd_jax.rendering.volume import Rendering, render

GREY, WHITE = 0.8, 1.0

Background = Literal["grey", "white", "colour", "directional"]
PLAIN = {"white": WHITE, "grey": GREY}
_LEARNED = {"colour": LearnedColour, "directional": DirectionalBackground}


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Hashable, so it may be a static argument of a jitted function.

    Attributes:
        field: the object.
        background: "grey" is `GREY` everywhere, "white" `WHITE`, "colour" one learned colour,
            "directional" a learned colour for each direction.
    """

    field: RadianceField
    background: Background = "grey"

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters {"field": ..., "background": ...}; the latter is {} for plain ones."""
        field_key, background_key = jax.random.split(key)
        origin = jnp.zeros((1, 3))
        params = {"field": self.field.init(field_key, origin)["params"], "background": {}}
        if self.background not in PLAIN:
            module = _LEARNED[self.background]()
            params["background"] = module.init(background_key, origin + 1.0)["params"]
        return params

    def field_fn(
        self, params: dict[str, Any], open_levels=None, floor_part: jax.Array | float = 1.0
    ) -> FieldFn:
        """Points [n, 3] -> (density [n], albedo [n, 3]); see `RadianceField` for the two parts."""
        apply: Callable[..., Any] = self.field.apply
        parts = {"open_levels": open_levels, "floor_part": floor_part}
        return lambda x: apply({"params": params["field"]}, x, **parts)

    def background_of(self, params: dict[str, Any], plain: bool = False) -> Any:
        """What `render` takes as its background; `plain` asks for grey whatever was learned."""
        if plain or self.background in PLAIN:
            return GREY if plain else PLAIN[self.background]
        module = _LEARNED[self.background]()
        return lambda directions: module.apply({"params": params["background"]}, directions)

    def render(
        self,
        params: dict[str, Any],
        camera: Camera,
        key: jax.Array | None = None,
        *,
        open_levels=None,
        floor_part: jax.Array | float = 1.0,
        plain_background: bool = False,
        background=None,
        **settings,
    ) -> Rendering:
        """`volume.render` of this scene; `settings` are its height, width, samples_per_ray, ...

        A `background`, if given, takes the place of the scene's own.
        """
        own = self.background_of(params, plain_background)
        return render(
            self.field_fn(params, open_levels, floor_part),
            camera,
            key,
            background=own if background is None else background,
            interval=ray_ball,
            **settings,
        )
