"""A surface field: matter is the inside of a surface, given by a signed distance.

Density follows the distance by the Laplace distribution (VolSDF, Yariv et al. 2021, arXiv
2106.12052), whose width w shrinks:

    density = 1/w (1/2 exp(-d / w) outside, 1 - 1/2 exp(d / w) inside).

The field wraps another one, whose colours it keeps and from whose density it starts: until the
refinement it is that field. Letters: n points, f features, d signed distance, in world units,
negative inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from dsd_jax.fields import solids
from dsd_jax.fields.base import Field
from dsd_jax.fields.hash_grid import HashGrid, encode, grid_or_mlp, level_resolutions

# Of the fit of the distance to that of the density's shape: points a step, learning rate.
_POINTS, _RATE = 4096, 0.01
# Where the surface lies beyond the outermost solid grid points, in steps; `solids.halved` makes
# what is solid a quarter of a step larger.
_RIM = 0.25
# Of squareplus: at 0 it is half the root of this.
_ROUNDNESS = 0.02
# Share of the points that lie near the surface, and how near.
_NEAR_SHARE, _NEAR = 0.75, 0.15


class Distance(nn.Module):
    """Hash grid -> one hidden layer -> distance, beside that of a sphere of radius 1/2.

    The layer's activation is squareplus (Barron 2021, arXiv 2112.11687), which is as smooth as
    softplus and takes a CPU a third of its time.

    Attributes:
        levels, log2_entries, base_resolution, growth: see `HashGrid`.
        width: of the network.
    """

    levels: int
    log2_entries: int
    base_resolution: int
    growth: float
    width: int

    @nn.compact
    def __call__(self, points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        grid = HashGrid(self.levels, 2, self.log2_entries, self.base_resolution, self.growth)
        hidden = jnp.concatenate([grid(points), points], -1)
        hidden = jax.nn.squareplus(nn.Dense(self.width)(hidden), _ROUNDNESS)
        found = nn.Dense(1, kernel_init=nn.initializers.normal(0.01))(hidden)[:, 0]
        return found + jnp.sqrt(jnp.sum(points * points, -1) + 1e-6) - 0.5


class SurfaceStage(NamedTuple):
    """What of the field is in use.

    Attributes:
        base: of the field that it wraps.
        width: w, of the distribution; 0 until the field is solid.
    """

    base: Any
    width: Any


@dataclass(frozen=True)
class SurfaceField(Field):
    """Another field, whose matter becomes the inside of a surface when it is refined.

    Attributes:
        base: the field that it wraps.
        solid: whether density comes from the distance; None leaves that to the stage. The
            parameters are the same either way, and a program that knows which computes half.
        levels, log2_entries, base_resolution, growth, hidden_width: of `Distance`.
        width_first, width_last: w at the start and at the end, between them along an exponential.
        eikonal, curvature: weights of `penalty`.
        threshold, closing, cells, settle_steps: of `settled`.
    """

    base: Field
    solid: bool | None = None
    levels: int = 5
    log2_entries: int = 16
    base_resolution: int = 12
    growth: float = 1.6
    hidden_width: int = 32
    width_first: float = 0.03
    width_last: float = 0.005
    eikonal: float = 0.05
    curvature: float = 2e-4
    threshold: float = 10.0
    closing: int = 2
    cells: int = 64
    settle_steps: int = 300

    @property
    def module(self) -> Distance:
        """The Flax module, whose "params" are those of the distance."""
        return Distance(
            self.levels, self.log2_entries, self.base_resolution, self.growth, self.hidden_width
        )

    @property
    def resolution(self) -> int:
        """Cells along an axis of the finest level."""
        return self.resolution_at(None)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters {"base": ..., "distance": ...}: those of `base` are as without this."""
        distance = self.module.init(jax.random.fold_in(key, 1), jnp.zeros((1, 3)))["params"]
        return {"base": self.base.init(key), "distance": distance}

    def apply(
        self, params: dict[str, Any], points: Float[Array, "n 3"], stage: Any = None
    ) -> tuple[Float[Array, "n"], Float[Array, "n f"]]:
        """Density and features; without a stage it is solid, and the width is the last one."""
        stage = SurfaceStage(None, self.width_last) if stage is None else stage
        density, features = self.base.apply(params["base"], points, stage.base)
        if self.solid is False:
            return density, features
        if self.solid:
            return self._solid_density(params, points, stage.width), features
        solid = partial(self._solid_density, params, points, stage.width)
        return jax.lax.cond(stage.width > 0, solid, lambda: density), features

    def _solid_density(self, params, points, width) -> Float[Array, "n"]:
        density = laplace_density(self.distance(params, points), jnp.maximum(width, 1e-6))
        return jnp.where(jnp.sum(points * points, -1) <= 1, density, 0)

    def proposal(
        self, params: dict[str, Any], stage: Any = None
    ) -> Callable[[Array], Array] | None:
        """The density itself, where it is known to come from the distance."""
        if not self.solid:
            return None
        width = self.width_last if stage is None else stage.width
        return partial(self._solid_density, params, width=width)

    def distance(self, params: dict[str, Any], points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Signed distance of points, nearly."""
        found: Any = self.module.apply({"params": params["distance"]}, points)
        return found

    def parameter_groups(self, params: dict[str, Any]) -> dict[str, Any]:
        """Those of `base`; of the distance the tables are "grid", all else is "mlp"."""
        distance = grid_or_mlp(params["distance"])
        return {"base": self.base.parameter_groups(params["base"]), "distance": distance}

    def stage(self, progress: Any, final: bool = False) -> Any:
        """The base's, and beyond progress 1 a width, which shrinks up to progress 2."""
        part = jnp.asarray(progress, jnp.float32) - 1
        width = self.width_first * (self.width_last / self.width_first) ** jnp.clip(part, 0, 1)
        return SurfaceStage(self.base.stage(progress, final), jnp.where(part > 0, width, 0.0))

    def resolution_at(self, stage: Any) -> int:
        """Cells along an axis of the finest level, the base's while it is that."""
        if stage is not None and not stage.width > 0:
            return self.base.resolution_at(stage.base)
        return level_resolutions(self.levels, self.base_resolution, self.growth)[-1]

    def penalty(self, params: dict[str, Any], points: Float[Array, "n 3"]) -> Float[Array, ""]:
        """Gradients of length 1 (eikonal), and few folds (curvature), by differences of a cell.

            eikonal mean (|grad d| - 1)^2 + curvature mean |laplacian d|

        as Neuralangelo (Li et al. 2023, arXiv 2306.03092) takes them.
        """
        step = 2.0 / self.resolution_at(None)
        offsets = step * jnp.concatenate([jnp.eye(3), -jnp.eye(3), jnp.zeros((1, 3))])
        around = (points[:, None] + offsets).reshape(-1, 3)
        found = self.distance(params, around).reshape(-1, 7)
        gradient = (found[:, :3] - found[:, 3:6]) / (2 * step)
        laplacian = (jnp.sum(found[:, :6], -1) - 6 * found[:, 6]) / step**2
        length = jnp.sqrt(jnp.sum(jnp.square(gradient), -1) + 1e-12)
        unit, fold = jnp.mean(jnp.square(length - 1)), jnp.mean(jnp.abs(laplacian))
        return self.eikonal * unit + self.curvature * fold

    def settled(self, key: jax.Array, params: dict[str, Any], stage: Any) -> dict[str, Any]:
        """The parameters whose distance is that of the base's shape: what is solid starts from.

        The density on a grid of half a cell, above `threshold`, its gaps and hollows closed; the
        distance to it; a short fit. Where nothing is so dense, the sphere of the start stays.

        Args:
            stage: of the base.
        """
        density = solids.on_grid(
            lambda points: self.base.apply(params["base"], points, stage)[0], 2 * self.cells
        )
        solid = solids.solid_of(solids.halved(density > self.threshold), self.closing)
        shape = solids.smoothed(solids.signed_distance(solid, _RIM))
        fitted = self._fitted(key, params["distance"], shape)
        some = jnp.any(solid)
        distance = jax.tree.map(partial(jnp.where, some), fitted, params["distance"])
        return {**params, "distance": distance}

    def _fitted(self, key: jax.Array, params: Any, shape: Float[Array, "g g g"]) -> Any:
        """Parameters of `Distance` that give the distance on a grid."""
        table = shape.transpose(2, 1, 0).reshape(-1, 1)
        near = jnp.cumsum((jnp.abs(shape) < _NEAR).reshape(-1).astype(jnp.int32))
        adam = optax.adam(optax.cosine_decay_schedule(_RATE, self.settle_steps, 0.1))

        def step(carry, key):
            params, opt_state = carry
            points = _points(key, near, shape.shape[0])
            wanted = encode((table,), points, (self.cells,))[:, 0]

            def loss(params):
                found: Any = self.module.apply({"params": params}, points)
                return jnp.mean(jnp.abs(found - wanted))

            updates, opt_state = adam.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        keys = jax.random.split(key, self.settle_steps)
        return jax.lax.scan(step, (params, adam.init(params)), keys)[0][0]


def laplace_density(distance: Float[Array, "n"], width) -> Float[Array, "n"]:
    """1 / width times the share of a Laplace distribution of this width above the distance."""
    tail = 0.5 * jnp.exp(-jnp.abs(distance) / width)
    return jnp.where(distance > 0, tail, 1 - tail) / width


@partial(jax.jit, static_argnames="g")
def _points(key: jax.Array, near: Array, g: int) -> Float[Array, "p 3"]:
    """Random points of the box, most of them near a surface.

    Args:
        near: [g^3] how many grid points up to each are near it.
    """
    keys = jax.random.split(key, 4)
    anywhere = jax.random.uniform(keys[0], (_POINTS, 3), minval=-1, maxval=1)
    rank = jax.random.randint(keys[1], (_POINTS,), 1, jnp.maximum(near[-1], 1) + 1)
    index = jnp.searchsorted(near, rank)
    corner = jnp.stack([index // (g * g), index // g % g, index % g], -1)
    jitter = jax.random.uniform(keys[2], corner.shape, minval=-0.5, maxval=0.5)
    there = jnp.clip(2 * (corner + jitter) / (g - 1) - 1, -1, 1)
    chosen = jax.random.uniform(keys[3], (_POINTS, 1)) < _NEAR_SHARE
    return jnp.where(chosen & (near[-1] > 0), there, anywhere)
