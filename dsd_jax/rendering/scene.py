"""A scene: one field before a background, with all their parameters in one pytree.

Letters: h w height and width of a picture, n points or directions.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dsd_jax.fields.background import GREY, DirectionalBackground, LearnedColour
from dsd_jax.fields.base import Field, FieldFn, completed
from dsd_jax.rendering.cameras import Camera
from dsd_jax.rendering.sampling import ray_ball
from dsd_jax.rendering.volume import Rendering, render, render_rays

WHITE = 1.0

Background = Literal["grey", "white", "colour", "directional"]
PLAIN = {"white": WHITE, "grey": GREY}
_LEARNED = {"colour": LearnedColour, "directional": DirectionalBackground}


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Hashable, so it may be a static argument of a jitted function.

    Attributes:
        field: the object; see `fields.base.completed` for those that lack what they may lack.
        background: "grey" is `GREY` everywhere, "white" `WHITE`, "colour" one learned colour,
            "directional" a learned colour for each direction.
    """

    field: Field
    background: Background = "grey"

    def __post_init__(self):
        if self.background not in (*PLAIN, *_LEARNED):
            raise ValueError(f"there is no background {self.background}")
        object.__setattr__(self, "field", completed(self.field))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters {"field": ..., "background": ...}; the latter is {} for plain ones."""
        field_key, background_key = jax.random.split(key)
        params = {"field": self.field.init(field_key), "background": {}}
        if self.background not in PLAIN:
            module = _LEARNED[self.background]()
            params["background"] = module.init(background_key, jnp.ones((1, 3)))["params"]
        return params

    def field_fn(self, params: dict[str, Any], stage: Any = None) -> FieldFn:
        """Points [n, 3] -> (density [n], features [n, f]) at a stage of the field, None: all."""
        return lambda points: self.field.apply(params["field"], points, stage)

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
        stage: Any = None,
        plain_background: bool = False,
        background=None,
        **settings,
    ) -> Rendering:
        """`volume.render` of this scene; `settings` are its height, width, samples_per_ray, ...

        A `background`, if given, takes the place of the scene's own.
        """
        own = self.background_of(params, plain_background)
        return render(
            self.field_fn(params, stage),
            camera,
            key,
            proposal=self.field.proposal(params["field"], stage),
            background=own if background is None else background,
            interval=ray_ball,
            **settings,
        )

    def render_rays(
        self,
        params: dict[str, Any],
        origins: jax.Array,
        directions: jax.Array,
        key: jax.Array | None,
        *,
        stage: Any = None,
        **settings,
    ) -> Rendering:
        """`volume.render_rays` of this scene before its own background."""
        return render_rays(
            self.field_fn(params, stage),
            origins,
            directions,
            key,
            proposal=self.field.proposal(params["field"], stage),
            background=self.background_of(params),
            interval=ray_ball,
            **settings,
        )
