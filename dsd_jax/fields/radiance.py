"""Radiance fields: a hash grid and a small network for density and albedo, and their normals.

Letters: n points, f features (albedo: 3). Density is optical thickness per unit length of the
world box [-1, 1]^3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsd_jax.checks import at_least, at_most, flag, fractions
from dsd_jax.fields.base import Field, FieldFn
from dsd_jax.fields.hash_grid import HashGrid, grid_or_mlp, level_resolutions


def truncated_exp(x: jax.Array) -> jax.Array:
    """exp whose argument stops at 15, a density activation that neither overflows nor explodes."""
    return jnp.exp(jnp.minimum(x, 15.0))


# What turns a raw output into density, by name.
DENSITIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "softplus": jax.nn.softplus,
    "exp": truncated_exp,
}


class RadianceField(nn.Module):
    """Hash grid -> one ReLU network -> density (softplus or exp) and albedo (sigmoid).

    Before the activation, density gets Magic3D's blob (threestudio's `blob_magic3d`),
    blob_scale * (1 - |x| / blob_std), so that optimisation starts from a soft grey ball.

    Attributes:
        levels, features, log2_entries, base_resolution, growth: see `HashGrid`.
        width, hidden_layers: of the network, which has no biases.
        outputs: channels of the features, 3 for albedo.
        blob_scale, blob_std: of the density bias; 0 turns it off.
        radius: density is zero where |x| > radius.
        density_floor: what is taken off the density, down to 0: no haze thinner than that.
        density_activation: non-negative function, one of `DENSITIES`.
        colour_std: of the Gaussian from which the colour's bias is drawn, before the sigmoid;
            at 0 there is no bias, and the ball is grey.
    """

    levels: int = 16
    features: int = 2
    log2_entries: int = 19
    base_resolution: int = 16
    growth: float = 1.447
    width: int = 64
    hidden_layers: int = 1
    outputs: int = 3
    blob_scale: float = 10.0
    blob_std: float = 0.5
    radius: float = 1.0
    density_activation: Callable[[jax.Array], jax.Array] = jax.nn.softplus
    density_floor: float = 0.0
    colour_std: float = 0.0

    @nn.compact
    def __call__(
        self, points: Float[Array, "n 3"], open_levels=None, floor_part: jax.Array | float = 1.0
    ) -> tuple[Float[Array, "n"], Float[Array, "n f"]]:
        """Density [n] and features [n, outputs] in (0, 1).

        open_levels: as in `encode`.
        floor_part: share of `density_floor` that is taken off, in [0, 1], possibly traced.
        """
        grid = HashGrid(
            self.levels, self.features, self.log2_entries, self.base_resolution, self.growth
        )
        hidden = grid(points, open_levels)
        initial = nn.initializers.he_uniform()
        for _ in range(self.hidden_layers):
            hidden = nn.relu(nn.Dense(self.width, use_bias=False, kernel_init=initial)(hidden))
        raw = nn.Dense(1 + self.outputs, use_bias=False, kernel_init=initial)(hidden)
        squared = jnp.sum(points * points, -1)
        distance = jnp.sqrt(jnp.maximum(squared, 1e-12))
        bias = self.blob_scale * (1 - distance / self.blob_std)
        density = self.density_activation(raw[:, 0] + bias)
        if self.density_floor:
            density = nn.relu(density - self.density_floor * floor_part)
        density = jnp.where(squared <= self.radius**2, density, 0)
        colour = raw[:, 1:]
        if self.colour_std:
            spread = nn.initializers.normal(self.colour_std)
            colour = colour + self.param("colour", spread, (self.outputs,))
        return density, nn.sigmoid(colour)


class Stage(NamedTuple):
    """What of a `HashGridField` is in use.

    Attributes:
        open_levels: how many levels of its grid, see `hash_grid.encode`; None means all.
        floor_part: share of `density_floor` that holds, in [0, 1].
    """

    open_levels: Any
    floor_part: Any


@dataclass(frozen=True)
class HashGridField(Field):
    """A `RadianceField` whose levels open one after another, and whose haze goes at last."""

    levels: int = 6
    """Levels of the hash grid."""
    features: int = 2
    """Features of a level."""
    log2_entries: int = 16
    """Base-2 logarithm of the entries of a level's table."""
    base_resolution: int = 12
    """Cells a side of the coarsest level."""
    growth: float = 1.5
    """Factor from one level's resolution to the next."""
    width: int = 32
    """Width of the MLP behind the grid."""
    hidden_layers: int = 1
    """Hidden layers of that MLP."""
    density: Literal["softplus", "exp"] = "exp"
    """How the field's raw output becomes density."""
    blob_scale: float = 4.0
    """Raw density that the field starts with at the centre."""
    blob_std: float = 0.5
    """Radius at which that raw density reaches 0."""
    colour_std: float = 1.0
    """Spread over seeds of the colour, before the sigmoid, that the field starts with."""
    density_floor: float = 10.0
    """What is taken off the density in the end, so that no haze stays around the surface: nothing
    until `floor_from`, all of it from 0.9 of the steps on and in the results."""
    floor_from: float = 0.5
    """Part of the steps from which that begins to hold."""
    start_levels: float = 6
    """Levels open at the first step; the others open one after another until `levels_until`."""
    levels_until: float = 0.5
    """Part of the steps after which all levels are open."""

    def __post_init__(self):
        counts = ("levels", "features", "log2_entries", "base_resolution", "width", "hidden_layers")
        at_least(self, "field", 1, *counts)
        at_most(self, "field", levels=64, hidden_layers=64, log2_entries=28)
        fractions(self, "field", "levels_until", "floor_from")
        self._refuse_unless(self.density_floor >= 0, "density_floor", "not be negative")
        self._refuse_unless(self.growth >= 1, "growth", "be at least 1")
        finest = math.log2(self.base_resolution) + (self.levels - 1) * math.log2(self.growth)
        if finest > 20:
            three = ", ".join(
                f"--{flag('field', n)}" for n in ("base_resolution", "levels", "growth")
            )
            raise ValueError(f"{three} must end at 2^20 cells or fewer, not at 2^{finest:.1f}")
        self._refuse_unless(self.density in DENSITIES, "density", f"be {' or '.join(DENSITIES)}")

    def _refuse_unless(self, right: bool, name: str, must: str) -> None:
        if not right:
            raise ValueError(f"--{flag('field', name)} must {must}, not {getattr(self, name)}")

    @property
    def module(self) -> RadianceField:
        """The Flax module, whose "params" are the field's parameters."""
        return RadianceField(
            levels=self.levels,
            features=self.features,
            log2_entries=self.log2_entries,
            base_resolution=self.base_resolution,
            growth=self.growth,
            width=self.width,
            hidden_layers=self.hidden_layers,
            blob_scale=self.blob_scale,
            blob_std=self.blob_std,
            density_activation=DENSITIES[self.density],
            density_floor=self.density_floor,
            colour_std=self.colour_std,
        )

    @property
    def resolution(self) -> int:
        """Cells along an axis of the finest level."""
        return self.resolution_at(None)

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters of `module`."""
        return self.module.init(key, jnp.zeros((1, 3)))["params"]

    def apply(
        self, params: dict[str, Any], points: Float[Array, "n 3"], stage: Stage | None = None
    ) -> tuple[Float[Array, "n"], Float[Array, "n 3"]]:
        """Density and albedo; without a stage all levels are open, and the floor holds."""
        apply: Callable[..., Any] = self.module.apply
        parts = (None, 1.0) if stage is None else stage
        return apply({"params": params}, points, *parts)

    def parameter_groups(self, params: dict[str, Any]) -> Any:
        """The tables of the hash grid are "grid", all else is "mlp"."""
        return grid_or_mlp(params)

    def stage(self, progress: Any, final: bool = False) -> Stage:
        """Levels open from `start_levels` at the start linearly to all at `levels_until`.

        The floor rises from `floor_from` to 0.9; results show all of it.
        """
        levels = None
        if self.start_levels < self.levels:
            part = ramp(progress, 0.0, self.levels_until)
            levels = self.start_levels + part * (self.levels - self.start_levels)
        return Stage(levels, 1.0 if final else ramp(progress, self.floor_from, 0.9))

    def resolution_at(self, stage: Stage | None) -> int:
        """Cells along an axis of the finest level that is open, be it by a part."""
        levels = self.levels
        if stage is not None and stage.open_levels is not None:
            levels = min(max(int(np.ceil(stage.open_levels)), 1), levels)
        return level_resolutions(levels, self.base_resolution, self.growth)[-1]


def ramp(progress: Any, start: float, end: float) -> jax.Array:
    """From 0 at progress = `start` to 1 at progress = `end`, linearly, and constant outside."""
    progress = jnp.asarray(progress, jnp.float32)
    return jnp.clip((progress - start) / max(end - start, 1e-9), 0.0, 1.0)


def _unit(vector: jax.Array) -> jax.Array:
    """vector / |vector| along the last axis; zero vectors stay zero and differentiate safely."""
    squared = jnp.sum(vector * vector, -1, keepdims=True)
    return jnp.where(squared > 1e-20, vector * jax.lax.rsqrt(jnp.maximum(squared, 1e-20)), 0)


def analytic_normals(
    field_fn: FieldFn, points: Float[Array, "n 3"]
) -> tuple[Float[Array, "n"], Float[Array, "n f"], Float[Array, "n 3"]]:
    """(density, features, normals): normals are -grad density / |grad density|, by a backward pass.

    field_fn must treat points independently of one another. Zero where density is constant.
    """
    density, pullback, features = jax.vjp(field_fn, points, has_aux=True)
    (gradient,) = pullback(jnp.ones_like(density))
    return density, features, _unit(-gradient)


def finite_difference_normals(
    field_fn: FieldFn, points: Float[Array, "n 3"], step: float = 0.03
) -> tuple[Float[Array, "n"], Float[Array, "n f"], Float[Array, "n 3"]]:
    """Like `analytic_normals`, from central differences: six more densities at `step` along axes.

    Smoother than the analytic normal (it averages over `step`, in world units), and needs no
    second derivative when it is part of a loss.
    """
    density, features = field_fn(points)
    offsets = step * jnp.concatenate([jnp.eye(3), -jnp.eye(3)]).astype(points.dtype)
    around, _ = field_fn((points + offsets[:, None]).reshape(-1, 3))
    ahead, behind = around.reshape(2, 3, -1)
    return density, features, _unit((behind - ahead).T / (2 * step))
