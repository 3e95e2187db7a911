"""What a distillation method is, and what a run tells it beside the sample.

Letters as in schedule.py, w being the guidance scale.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax

from dsd_jax import ode
from dsd_jax.checks import fractions, known_words, positive
from dsd_jax.guidance import DenoiserAt
from dsd_jax.schedule import NoiseSchedule

ViewNoise = Literal["shared", "own", "attached"]
Weighting = Literal["variance", "one-step"]


class Given(NamedTuple):
    """What a run knows beside the sample; a method reads what it needs of it.

    Attributes:
        progress: [] part of the run's steps that are done, 0 .. 1, perhaps traced.
        t_range: fractions of T from which and to which t falls in this run.
        least_eta: [] the least share of fresh noise in this view, 0 .. 1.
        t_prime: takes the place of DSD's draw of t'.
        ode_at: t' -> where the seed's ODE stands there, where the run keeps it.
        learned: prediction of the network that the method trains, without guidance.
        negative: prediction for `Method.bad_prompt`, without guidance.
    """

    progress: Any = None
    t_range: tuple[float, float] | None = None
    least_eta: Any = 0.0
    t_prime: Any = None
    ode_at: Callable[[jax.Array], ode.Point] | None = None
    learned: ode.Denoiser | None = None
    negative: ode.Denoiser | None = None


NOTHING = Given()


@dataclass(frozen=True)
class Method(ABC):
    """A distillation method: its own numbers, and the gradient that it makes of them.

    Hashable, so that it may be a static argument of a jitted function. A method refuses numbers
    that cannot work with a ValueError that names the flag.

    Attributes:
        view_noise: where the noise of a view comes from unless the recipe says otherwise: the same
            for all; one for each; or noise that sticks to the object's surface.
        follows_ode: whether it takes `Given.ode_at`.
        differentiates: whether its gradient runs backwards through the prior and what it trains.
        trains: whether it has `init` and `update`, see `learned.TrainedMethod`.
    """

    guidance_scale: float = 7.5
    """Classifier-free guidance of the prediction at t, and of the seed's ODE where it is used."""
    guidance_rescale: float = 0.0
    """Share of what guidance does to the contrast that is taken back, see `guidance.rescaled`."""
    tsr_k: float = 1.0
    """Below 1 samples spread more widely, above 1 more narrowly: see `guidance.at_temperature`."""
    tsr_sigma: float = 1.0
    """The data's deviation for it, in latents; larger takes effect earlier."""
    weighting: Weighting = "variance"
    """Weight of a gradient over t: 1 - abar_t as published, or s_t, with which it is x - xhat_t."""

    view_noise: ClassVar[ViewNoise] = "shared"
    follows_ode: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False

    def __post_init__(self):
        known_words(self, "method")
        fractions(self, "method", "guidance_rescale")
        positive(self, "method", "tsr_k", "tsr_sigma")

    @property
    def bad_prompt(self) -> str | None:
        """The text whose prediction it wants as `Given.negative`, if any."""
        return None

    def weight(self, schedule: NoiseSchedule, t: jax.Array | int) -> Any:
        """Factor on the gradient at t, a scalar: sigma_t^2 or s_t by `weighting`."""
        return schedule.s(t) if self.weighting == "one-step" else schedule.variance(t)

    def ode_grid(self, schedule: NoiseSchedule) -> tuple[int, ...]:
        """Falling timesteps of the seed's simulated ODE, from T-1, where its noise lives, to 0."""
        return ode.linear_grid(11, schedule.last)

    def ode_denoiser(self, denoiser_at: DenoiserAt, schedule: NoiseSchedule) -> ode.Denoiser:
        """The denoiser that this ODE follows."""
        del schedule
        return denoiser_at(self.guidance_scale)

    @abstractmethod
    def gradient(
        self,
        key: jax.Array,
        denoiser_at: DenoiserAt,
        schedule: NoiseSchedule,
        x: jax.Array,
        seed_noise: jax.Array,
        t: jax.Array | int,
        given: Given = NOTHING,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What the prior wants of x: a gradient like it, and scalars to log.

        To descend, pull it back through the renderer with `jax.vjp`. Nothing flows back through
        the method itself. Every method logs "gradient_norm".

        Args:
            key: source of all fresh noise and draws.
            denoiser_at: guidance scale -> denoiser of the prior, with prompt and view bound.
            schedule: noise schedule of the prior.
            x: encoded rendering, [h, w, c] or [views, h, w, c].
            seed_noise: like x; the one noise that this object keeps for its whole life.
            t: timestep, 0 .. T-1, possibly traced; the same for all views.
            given: what the run knows beside.

        Raises:
            ValueError: the method cannot do without something that is not given.
        """

    def init(self, key: jax.Array, adapter: Callable[[jax.Array], Any]) -> Any:
        """State of the network that the method trains, before its first step; where `trains`.

        Args:
            key: source of the adapter's random weights.
            adapter: key -> weights that leave the prior as it is.

        Returns:
            A pytree with the adapter's `weights`.
        """
        raise NotImplementedError(f"{type(self).__name__} trains no network")

    def update(
        self,
        key: jax.Array,
        state: Any,
        learned_at: Callable[[Any], ode.Denoiser],
        denoiser_at: DenoiserAt,
        schedule: NoiseSchedule,
        x: jax.Array,
        t: jax.Array | int,
    ) -> tuple[Any, dict[str, jax.Array]]:
        """State of that network after one step of its training on x, and scalars to log.

        Called after every step of the sample, with all its views.

        Args:
            key: source of what the network trains at.
            state: of `init`.
            learned_at: weights -> prediction of the adapted network, without guidance.
            t: timestep of the sample's step.
            denoiser_at, schedule, x: as in `gradient`.
        """
        raise NotImplementedError(f"{type(self).__name__} trains no network")
