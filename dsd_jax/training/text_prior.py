"""Toybox from packed objects: render, train the autoencoder, encode, train the denoiser, export.

Every stage continues where it stopped.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dsd_jax import pytrees
from dsd_jax.data import pictures
from dsd_jax.data.objects import Objects
from dsd_jax.files import atomic_path
from dsd_jax.models import networks as networks_lib
from dsd_jax.models.weights import read_part
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training import autoencoder, common, corpus, diffusion, export, stage
from dsd_jax.training.compiling import Ahead, render
from dsd_jax.training.settings import TrainingSettings, compute_dtype
from dsd_jax.training.views import Views


def train(settings: TrainingSettings, data: Objects, mesh: Mesh, deadline: float, log) -> bool:
    """Train and export the prior; whether all its minutes are spent.

    Args:
        deadline: a `time.time()` at which to stop, ready to be continued.
        log: told a line now and then.
    """
    origin = settings.continue_from
    text = export.prepare_text(
        data, settings.palettes, settings.out, tokenizer=origin and origin / "tokenizer"
    )
    networks = networks_lib.build(
        *export.configs(len(text.tokenizer), settings),
        dtype=compute_dtype(),
    )
    if origin:
        params = export.load_params(origin, networks)
    else:
        params = networks_lib.init_params(networks, jax.random.key(settings.seed))
    if settings.vae:
        shapes = networks_lib.param_shapes(networks)["vae"]
        params["vae"] = read_part(settings.vae, "vae", shapes, np.float32)
    views = pictures.plan_views(np.random.default_rng(settings.seed), len(data), settings.groups)
    indices = corpus.padded_indices(len(data), mesh.size)
    weight = corpus.object_weights(data.category, len(indices))
    camera, phrase = corpus.view_inputs(views, indices)
    side = settings.resolution // 8
    shape = (*camera.shape[:2], settings.palettes, side, side, settings.latent_channels)
    fields: dict[str, Any] = {
        "latents": jax.ShapeDtypeStruct(shape, jnp.float16), "camera": camera, "phrase": phrase,
        "tokens": text.tokens[indices], "weight": weight,
    }  # fmt: skip
    training = diffusion.Latents(**fields)
    length = text.tokenizer.model_max_length
    empty = text.tokenizer("", padding="max_length", max_length=length)["input_ids"]
    constants = {"empty": np.asarray(empty, np.int16), "scaling": np.float32(1)}
    ahead = Ahead(
        mesh,
        diffusion.make_losses(
            networks.unet,
            networks.text_encoder,
            NoiseSchedule.from_config(export.SCHEDULER),
            settings.unet_batch,
        ),
        {part: params[part] for part in ("unet", "text_encoder")},
        training,
        constants,
        jax.random.key(settings.seed + 2),
    )
    latents_file, vae_done = settings.out / "latents.npy", settings.out / "vae_params.safetensors"
    if not latents_file.exists():
        rgba = render(data, indices, views, settings.resolution, mesh, ahead, log)
        vae, finished = _train_vae(
            networks, params["vae"], rgba, weight, settings, mesh, deadline, log
        )
        if not finished:
            return False
        pytrees.save_tree(vae_done, vae)
        ahead.wait()
        colours = text.angle[indices], text.tint[indices]
        latents = np.asarray(corpus.encode_views(mesh, networks.vae, vae, rgba, *colours))
        with atomic_path(latents_file) as temporary:
            np.save(temporary, latents)
        log(f"encoded {latents.shape}")
        del rgba
    params["vae"] = pytrees.load_tree(vae_done, networks_lib.param_shapes(networks)["vae"])
    latents = np.load(latents_file, mmap_mode="r")
    constants["scaling"] = np.float32(1 / corpus.deviation(latents))
    training = dataclasses.replace(training, latents=latents)
    trained, finished = ahead.train(
        training, constants, name="unet", **settings.denoiser_stage(deadline, log)
    )
    params = {"vae": params["vae"], **trained}
    export.save(
        settings,
        params,
        float(constants["scaling"]),
        data,
    )
    log(f"exported {settings.out / 'export'}")
    return finished


def _train_vae(networks, params, rgba, weight, settings: TrainingSettings, mesh, deadline, log):
    """Trained autoencoder weights (the moving average), and whether the budget is spent."""
    if settings.vae_minutes <= 0:
        return params, True
    views = Views(rgba=rgba, weight=common.shard_objects(mesh, weight))
    start = autoencoder.start(networks.vae, params, jax.random.key(settings.seed + 3))
    loss = autoencoder.make_loss(networks.vae, settings.vae_batch, settings.vae_sharpness)
    state, finished = stage.train(
        common.replicate(mesh, common.init_state(start)),
        common.make_step(mesh, [loss], start, max_decay=0.998),
        views,
        {},
        jax.random.key(settings.seed + 1),
        folder=settings.out,
        name="vae",
        minutes=settings.vae_minutes,
        peak_rate=settings.vae_rate,
        deadline=deadline,
        log=log,
    )
    trained = common.unstacked(state.average, start)["vae"]
    sample = np.asarray(rgba[:: max(1, len(rgba) // 64), 0])
    log(f"vae: {autoencoder.quality(networks.vae, trained, sample)} on its views")
    return jax.device_get(trained), finished
