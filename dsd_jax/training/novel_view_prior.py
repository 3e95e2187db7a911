"""Toybox-1-to-3 from packed objects: render, encode, train the denoiser, export, draw a sheet."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from dsd_jax.data import pictures
from dsd_jax.data.deformed import with_deformed
from dsd_jax.data.objects import Objects
from dsd_jax.priors import EMBEDDED
from dsd_jax.rendering.scene import WHITE
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training import corpus, export, image_prior, novel_view, novel_view_sheet
from dsd_jax.training.compiling import Ahead, render
from dsd_jax.training.settings import TrainingSettings, compute_dtype

LARGEST_DEVIATION = 1.5  # of scaled latents


def train(settings: TrainingSettings, data: Objects, mesh: Mesh, deadline: float, log) -> bool:
    """Train and export the prior; whether all its minutes are spent.

    Args:
        deadline: a `time.time()` at which to stop, ready to be continued.
        log: told a line now and then.
    """
    origin = settings.vae or EMBEDDED["toybox"]
    networks, vae = image_prior.build(origin, settings.resolution, settings.small, compute_dtype())
    if settings.continue_from:
        params = image_prior.load(settings.continue_from, networks)
    else:
        params = image_prior.start(networks, jax.random.key(settings.seed))
    rng = np.random.default_rng(settings.seed)
    true, data = data, with_deformed(data, settings.deformed, rng)
    views = pictures.plan_views(rng, len(data), settings.groups)
    indices = corpus.padded_indices(len(data), mesh.size)
    training = novel_view.shapes(networks, views, data, indices, settings.palettes)
    schedule = NoiseSchedule.from_config(export.SCHEDULER)
    ahead = Ahead(
        mesh,
        [
            novel_view.make_loss(
                networks, schedule, settings.unet_batch, noisy_weight=settings.noisy_weight
            )
        ],
        params,
        training,
        {},
        jax.random.key(settings.seed + 2),
    )
    angle, tint = novel_view.palettes(rng, data, settings.palettes)
    rgba = render(data, indices, views, settings.resolution, mesh, ahead, log)
    ahead.wait()
    colours = angle[indices], tint[indices]
    latents = corpus.encode_views(mesh, networks.vae, vae, rgba, *colours, WHITE)
    log(f"encoded {jax.block_until_ready(latents).shape}")
    check_scale(latents, networks.vae.config.scaling_factor, origin)
    training = dataclasses.replace(
        training, rgba=rgba, latents=latents, angle=colours[0], tint=colours[1]
    )
    trained, finished = ahead.train(
        training, {}, name="novel_view", **settings.denoiser_stage(deadline, log)
    )
    folder = settings.out / "export" / "toybox-1to3"
    image_prior.save(folder, networks, trained, origin)
    log(f"exported {folder}")
    novel_view_sheet.run(folder, true, settings.out, log)
    return finished


def check_scale(latents, scaling_factor: float, origin: Path) -> None:
    """Refuse an autoencoder whose latents, scaled, are larger than noise.

    They shine through the noise of every t, and the denoiser would read the layout there
    instead of in the picture. Raises ValueError.
    """
    deviation = corpus.deviation(latents) * scaling_factor
    if deviation > LARGEST_DEVIATION:
        raise ValueError(
            f"{origin}: scaling_factor {scaling_factor:g} gives its latents deviation "
            f"{deviation:.2f}, which noise does not hide: give --vae a prior exported whole"
        )
