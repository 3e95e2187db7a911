"""What a prior is: what it is told, and what the rooms above ask of it.

A prior knows by itself whether it has a camera, reads a prompt or a picture, and denoises views
together; nothing above asks for its class. What it must have is `Prior` without `Defaults`; what it
lacks of these `completed` adds.

Letters: h w c a latent, H W k an image, of 3 channels or 4 (see `Defaults.sees_opacity`), v views,
s side of a picture. Angles in radians.
"""

import math
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dsd_jax.guidance import DenoiserAt
from dsd_jax.ode import Denoiser
from dsd_jax.schedule import NoiseSchedule

# The elevation above which a view is an overhead view.
OVERHEAD = math.pi / 3

# How a prior without camera is told of the view, see `view_words`.
ViewWords = Literal["perp-neg", "words", "none"]

# Which viewpoints are different to a prior: every azimuth and elevation; every azimuth, but left as
# right, and overhead above `OVERHEAD`; front, side, back and overhead; none.
Distinction = Literal["cameras", "sides", "words", "nothing"]


class Viewpoint(NamedTuple):
    """Where a view is taken from; stack the leaves for several views.

    Attributes:
        azimuth, elevation: [] radians; azimuth 0 is the front.
        camera_to_world: [4, 4] rigid transform, columns right, up, backward, position (OpenGL).
    """

    azimuth: Float[Array, "*views"]
    elevation: Float[Array, "*views"]
    camera_to_world: Float[Array, "*views 4 4"]


class Picture(NamedTuple):
    """One picture of the object, which a prior may be told in the place of a prompt.

    Attributes:
        rgb: in [0, 1], on white.
        elevation: [] radians, of the camera that took it.
        opacity: where the object is; a prior that `sees_opacity` needs it.
        azimuth: [] radians, of that camera; of the first of several pictures 0.
    """

    rgb: Float[Array, "s s 3"]
    elevation: Float[Array, ""]
    opacity: Float[Array, "s s"] | None = None
    azimuth: Any = 0.0


class Defaults(Protocol):
    """What a prior may say besides what it must, and what holds where it does not.

    Attributes:
        networks: `.unet` and `.vae`, Flax modules, from whose configurations memory is planned.
    """

    networks: Any = None

    @property
    def denoises_together(self) -> bool:
        """Whether views with a leading axis are denoised together, each knowing the others."""
        return False

    @property
    def sees_opacity(self) -> bool:
        """Whether images have a fourth channel: how much of the background the object hides.

        Their colours are those before the background, as without it.
        """
        return False

    @property
    def takes_pictures(self) -> bool:
        """Whether `Prior.condition` takes a list of pictures of one object, too."""
        return False

    @property
    def depends_on_elevation(self) -> bool:
        """Whether what a picture's prior draws depends on the elevation of the picture's camera."""
        return False

    def tells_apart(self, condition: Any) -> Distinction:
        """Which viewpoints are different to it under this condition."""
        return "cameras"

    def prediction_at(self: Any, params: Any, condition: Any, viewpoints: Viewpoint) -> Denoiser:
        """eps of the condition alone; arguments as of `Prior.denoiser_at`."""
        return self.denoiser_at(params, condition, viewpoints)(1.0)

    def samples_per_prediction(self, condition: Any) -> int:
        """Samples that go through the network for one guided prediction of one view."""
        return 2

    def init_adapter(self, key: jax.Array, params: Any, rank: int) -> Any:
        """Weights of an adapter that changes nothing yet; `params` may be shapes alone.

        Raises ValueError where the prior has none.
        """
        raise ValueError(_NO_ADAPTER)

    def adapt(self, params: Any, adapter: Any) -> Any:
        """`params` with an adapter's weights in them, to be passed in their place."""
        raise ValueError(_NO_ADAPTER)

    def for_steps(self: Any) -> "Prior":
        """The prior without what only `condition` needs."""
        return self

    def warnings(self, prompt: str) -> list[str]:
        """What a user should know of a prompt, a line each."""
        return []

    def negative_warnings(self, prompt: str) -> list[str]:
        """What a user should know of a prompt that is led away from, a line each."""
        return []


class Prior(Defaults, Protocol):
    """A denoiser of latents, and the way from pictures to latents and back.

    `encode`, `decode` and the denoisers are pure, take the weights as an argument and one sample,
    and can be jitted and vmapped.
    """

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a latent."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the images that it knows, pixels."""
        ...

    @property
    def params(self) -> Any:
        """What the methods are given as `params`, as it is or as a copy on devices."""
        ...

    def encode(self, params: Any, image: Float[Array, "H W k"]) -> Float[Array, "h w c"]:
        """Latent of an image in [0, 1] of any size; differentiable in `image`."""
        ...

    def decode(self, params: Any, x: Float[Array, "h w c"]) -> Float[Array, "H W k"]:
        """Image of a latent."""
        ...

    def condition(
        self,
        told: str | Picture,
        *,
        negative_prompt: str = "",
        view_prompts: ViewWords = "perp-neg",
    ) -> Any:
        """What a run's denoisers are told, a pytree; not jittable.

        A prior that `takes_pictures` may be told a list of them.

        Raises ValueError, in one line, for a prompt where it takes a picture, or the reverse.
        """
        ...

    def denoiser_at(self, params: Any, condition: Any, viewpoints: Viewpoint) -> DenoiserAt:
        """Guidance scale -> denoiser.

        Args:
            params: weights.
            condition: of `condition`.
            viewpoints: unbatched for x [h, w, c]; with a leading axis v for x [v, h, w, c], only
                where the prior `Defaults.denoises_together`.
        """
        ...


_NO_ADAPTER = (
    "this prior has no adapter, and so goes with no method that trains a network beside the sample "
    "(vsd, asd, sim)"
)
_OPTIONAL = tuple(name for name in vars(Defaults) if not name.startswith("_"))
_REQUIRED = tuple(name for name in vars(Prior) if not name.startswith("_"))


@struct.dataclass
class _Completed:
    """A prior, and `Defaults` where it has nothing of that name."""

    prior: Any

    def __getattr__(self, name: str) -> Any:
        if name == "prior" or name.startswith("__"):  # not set yet, or asked for by copy and pickle
            raise AttributeError(name)
        if name in _OPTIONAL and not hasattr(self.prior, name):
            default = vars(Defaults)[name]
            return default.__get__(self) if hasattr(default, "__get__") else default
        return getattr(self.prior, name)

    def for_steps(self) -> Any:
        """What the prior itself makes of it, completed."""
        return completed(self.prior.for_steps()) if hasattr(self.prior, "for_steps") else self


def completed(prior: Any) -> Prior:
    """`prior` itself, or, where it lacks any of `Defaults`, wrapped with them.

    Raises TypeError, with their names, where it lacks what a prior must have.
    """
    lacking = [name for name in _REQUIRED if not hasattr(prior, name)]
    if lacking:
        raise TypeError(f"{type(prior).__name__} is no prior: it has no {', no '.join(lacking)}")
    whole = all(hasattr(prior, name) for name in _OPTIONAL)
    return prior if whole else _Completed(prior)  # pyright: ignore[reportReturnType]


def uncompleted(prior: Any) -> Any:
    """What `completed` was given."""
    return prior.prior if isinstance(prior, _Completed) else prior


def angle_from_front(azimuth: Float[Array, "*views"]) -> Float[Array, "*views"]:
    """How far an azimuth is from 0, on either side: 0 to pi."""
    return jnp.abs(jnp.mod(azimuth + jnp.pi, 2 * jnp.pi) - jnp.pi)
