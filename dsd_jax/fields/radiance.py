"""Radiance fields: a hash grid and a small network for density and albedo, and their normals.

Letters: n points, f features (albedo: 3). Density is optical thickness per unit length of the
world box [-1, 1]^3.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsd_jax.fields.hash_grid import HashGrid

FieldFn = Callable[[Array], tuple[Array, Array]]


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
