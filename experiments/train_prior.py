"""Train Toybox, the embedded prior, from packed 3D objects.

    python experiments/train_prior.py --objects objects.npz --out checkpoints/toybox

Renders the objects (on the accelerator, never stored), trains the autoencoder, encodes the views
in several palettes, trains the denoiser and the text encoder on them, and exports the Stable
Diffusion folder `OUT/export`. Every stage continues where it stopped: run the same command again.
`--evaluate FOLDER` scores an exported folder instead.

    python experiments/train_prior.py --task novel-view --objects objects.npz \\
        --out checkpoints/toybox-1to3 --unet-batch 512 --unet-minutes 5.4

trains Toybox-1-to-3, which knows one picture instead of a prompt, on pairs of views: a denoiser, a
vision encoder and `cc_projection` beside Toybox's autoencoder. It exports
`OUT/export/toybox-1to3`, and OUT/sheet.jpg: samples for objects that are held out.
The packaged one took 5.2 minutes on 3 H200, and with --continue-from, --seed 3, --unet-rate 7e-4
and --unet-minutes 6.5 as long again on 2 of them.

The packaged Toybox took three sittings on 2 NVIDIA H100: the defaults (20 minutes in all), then

    python experiments/train_prior.py --objects objects.npz --out checkpoints/toybox2 \\
        --continue-from checkpoints/toybox/export --vae-minutes 0 --unet-minutes 9 --unet-batch 64

(13 minutes: compiling 2.7, rendering beside it, training 9 at 17 to 28 steps of 1,024 views a
second), and the same from there on with --seed 3 --unet-minutes 6.2 --unet-rate 7e-4 (9 minutes).
Scores: 34.8 dB; right category 78 % over 40 categories; own direction 0.91 car, 0.94 chair, 0.84
sofa, 0.91 fish. `--evaluate` takes 10 minutes on 2 CPU cores.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax import pytrees
from dsd_jax.data import objects as objects_lib
from dsd_jax.data import pictures
from dsd_jax.models import networks as networks_lib
from dsd_jax.priors import EMBEDDED
from dsd_jax.rendering.scene import WHITE
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training import (
    autoencoder,
    common,
    corpus,
    diffusion,
    export,
    image_prior,
    novel_view,
    novel_view_sheet,
    stage,
)
from dsd_jax.training.compiling import Ahead, render
from dsd_jax.training.views import Views, composite


@dataclass(frozen=True)
class Settings:
    """Train Toybox, or score an exported prior.

    Attributes:
        objects: packed objects, as experiments/pack_objects.py writes them.
        task: what to train: a prior of text, or of novel views of a picture.
        out: folder of checkpoints, sample sheets and the exported prior.
        evaluate: score this exported folder, or of novel views make the sheet, and stop.
        continue_from: start from the weights of an exported folder instead of random ones.
        groups: groups of four views rendered of each object.
        palettes: colourings of each object.
        vae: pipeline whose autoencoder the prior of novel views has.
        vae_minutes: training time of the autoencoder, without compiling; 0 keeps its weights.
        unet_minutes: training time of denoiser and text or vision encoder, without compiling.
        vae_batch: pictures a step and device.
        unet_batch: groups of four views a step and device, and as many times four single views
            come with them; of novel views, pairs a step and device.
        vae_rate: peak learning rate of the autoencoder.
        unet_rate: peak learning rate of denoiser and text or vision encoder.
        max_minutes: stop after this long, ready to be continued.
        limit: use only the first so many objects (0: all), for a trial.
        resolution: side of the pictures.
        small: miniature networks, for a trial on a CPU.
        seed: of everything random.
    """

    objects: Path
    task: Literal["text", "novel-view"] = "text"
    out: Path = Path("checkpoints/toybox")
    evaluate: Path | None = None
    continue_from: Path | None = None
    groups: int = 12
    palettes: int = 4
    vae: Path = EMBEDDED["toybox"]
    vae_minutes: float = 4.0
    unet_minutes: float = 14.0
    vae_batch: int = 96
    unet_batch: int = 96
    vae_rate: float = 1e-3
    unet_rate: float = 1e-3
    max_minutes: float = float("inf")
    limit: int = 0
    resolution: int = 128
    small: bool = False
    seed: int = 0


def log(message: str) -> None:
    print(time.strftime("%H:%M:%S"), message, flush=True)


def main(settings: Settings) -> int:
    start = time.time()
    deadline = start + 60 * settings.max_minutes
    try:
        data = objects_lib.load_objects(settings.objects)
        if settings.limit:
            data = objects_lib.first(data, settings.limit)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings.out.mkdir(parents=True, exist_ok=True)
    novel = settings.task == "novel-view"
    if settings.evaluate:
        from dsd_jax.training import evaluate

        evaluate_it = novel_view_sheet.run if novel else evaluate.run
        evaluate_it(settings.evaluate, data, settings.out, log)
        return 0
    mesh = common.data_mesh()
    log(f"{len(data)} objects, {mesh.size} x {jax.devices()[0].device_kind}")
    train_it = novel_view_prior if novel else text_prior
    try:
        finished = train_it(settings, data, mesh, deadline)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    log(f"{(time.time() - start) / 60:.1f} min in all")
    if not finished:
        log("stopped at --max-minutes: run the same command again to continue")
    return 0


def text_prior(settings: Settings, data, mesh, deadline: float) -> bool:
    """Train and export Toybox; whether all its minutes are spent."""
    origin = settings.continue_from
    text = export.prepare_text(
        data, settings.palettes, settings.out, tokenizer=origin and origin / "tokenizer"
    )
    networks = networks_lib.build(
        *export.configs(len(text.tokenizer), settings.resolution, settings.small),
        dtype=compute_dtype(),
    )
    if origin:
        params = export.load_params(origin, networks)
    else:
        params = networks_lib.init_params(networks, jax.random.key(settings.seed))
    views = pictures.plan_views(np.random.default_rng(settings.seed), len(data), settings.groups)
    indices = corpus.padded_indices(len(data), mesh.size)
    weight = corpus.object_weights(data.category, len(indices))
    camera, phrase = corpus.view_inputs(views, indices)
    shape = (*camera.shape[:2], settings.palettes, *[settings.resolution // 8] * 2, 4)
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
        diffusion.make_loss(
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
        vae, finished = train_vae(networks, params["vae"], rgba, weight, settings, mesh, deadline)
        if not finished:
            return False
        pytrees.save_tree(vae_done, vae)
        ahead.wait()
        colours = text.angle[indices], text.tint[indices]
        latents = np.asarray(corpus.encode_views(mesh, networks.vae, vae, rgba, *colours))
        np.save(latents_file, latents)
        log(f"encoded {latents.shape}")
        del rgba
    params["vae"] = pytrees.load_tree(vae_done, networks_lib.param_shapes(networks)["vae"])
    latents = np.load(latents_file, mmap_mode="r")
    constants["scaling"] = np.float32(1 / np.std(np.asarray(latents[::7, ::3, 0], np.float32)))
    training = dataclasses.replace(training, latents=latents)
    state, finished = ahead.train(training, constants, name="unet", **stage_of(settings, deadline))
    params = {"vae": params["vae"], **jax.device_get(state.average)}
    export.save(
        settings.out / "export",
        settings.resolution,
        settings.small,
        params,
        float(constants["scaling"]),
        data,
        settings.out / "tokenizer",
    )
    log(f"exported {settings.out / 'export'}")
    return finished


def novel_view_prior(settings: Settings, data, mesh, deadline: float) -> bool:
    """Train and export Toybox-1-to-3; whether all its minutes are spent."""
    networks, vae = image_prior.build(
        settings.vae, settings.resolution, settings.small, compute_dtype()
    )
    if settings.continue_from:
        params = image_prior.load(settings.continue_from, networks)
    else:
        params = image_prior.start(networks, jax.random.key(settings.seed))
    rng = np.random.default_rng(settings.seed)
    views = pictures.plan_views(rng, len(data), settings.groups)
    indices = corpus.padded_indices(len(data), mesh.size)
    training = novel_view.shapes(networks, views, data, indices, settings.palettes)
    schedule = NoiseSchedule.from_config(export.SCHEDULER)
    ahead = Ahead(
        mesh,
        novel_view.make_loss(networks, schedule, settings.unet_batch),
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
    training = dataclasses.replace(
        training, rgba=rgba, latents=latents, angle=colours[0], tint=colours[1]
    )
    state, finished = ahead.train(training, {}, name="novel_view", **stage_of(settings, deadline))
    folder = settings.out / "export" / "toybox-1to3"
    image_prior.save(folder, networks, jax.device_get(state.average), settings.vae)
    log(f"exported {folder}")
    novel_view_sheet.run(folder, data, settings.out, log)
    return finished


def compute_dtype():
    """What the networks compute in while they are trained."""
    return jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32


def stage_of(settings: Settings, deadline: float) -> dict[str, Any]:
    """Settings of `stage.train` for the denoiser and its encoder."""
    return {
        "folder": settings.out, "minutes": settings.unet_minutes, "peak_rate": settings.unet_rate,
        "deadline": deadline, "log": log,
    }  # fmt: skip


def train_vae(networks, params, rgba, weight, settings, mesh, deadline):
    """Trained autoencoder weights (the moving average), and whether the budget is spent."""
    if settings.vae_minutes <= 0:
        return params, True
    views = Views(rgba=rgba, weight=common.shard_objects(mesh, weight))
    step = common.make_step(
        mesh, autoencoder.make_loss(networks.vae, settings.vae_batch), max_decay=0.998
    )
    state, finished = stage.train(
        common.replicate(mesh, common.init_state(params)),
        step,
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
    sample = np.asarray(rgba[:: max(1, len(rgba) // 64), 0])
    psnr = autoencoder.psnr(networks.vae, state.average, np.asarray(composite(sample)))
    log(f"vae: PSNR {psnr:.2f} dB on its views")
    return jax.device_get(state.average), finished


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
