"""A prior of one's own: pictures of a prompt's colour, flat but for a variance, known exactly."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

import dsd_jax as dsd

COLOURS = {"red": (1.0, -1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


@dataclass(frozen=True)
class Flat:
    """One Gaussian for each colour; guidance leads away from grey."""

    params: float = 0.01  # the variance
    image_size: int = 4
    latent_shape: tuple = (4, 4, 3)
    schedule: dsd.NoiseSchedule = field(default_factory=lambda: dsd.NoiseSchedule.from_config({}))

    def encode(self, params, image):
        return 2 * jax.image.resize(image, self.latent_shape, "linear") - 1

    def decode(self, params, x):
        return (x + 1) / 2

    def condition(self, told, **_):
        return jnp.array([COLOURS[word] for word in told.split() if word in COLOURS])[0]

    def denoiser_at(self, params, condition, viewpoints):
        def network(x_t, t, mean):
            alpha, variance = (jnp.reshape(f(t), (-1, 1, 1, 1)) for f in
                               (self.schedule.alpha, self.schedule.variance))  # fmt: skip
            offset = x_t - alpha * mean[:, None, None]
            return jnp.sqrt(variance) * offset / (alpha**2 * params + variance)

        return dsd.classifier_free(network, condition, jnp.zeros_like(condition))
