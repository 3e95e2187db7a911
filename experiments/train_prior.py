"""Train Toybox, the embedded prior, from packed 3D objects.

    python experiments/train_prior.py --objects objects.npz --out checkpoints/toybox

Renders the objects (on the accelerator, never stored), trains the autoencoder, encodes the views
in several palettes, trains the denoiser and the text encoder on them, and exports the Stable
Diffusion folder `OUT/export`. Every stage continues where it stopped: run the same command again.
`--evaluate FOLDER` scores an exported folder instead.

What the package ships took three sittings on 2 NVIDIA H100: the defaults (20 minutes in all), then

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dsd_jax import pytrees
from dsd_jax.data import objects as objects_lib
from dsd_jax.data import pictures
from dsd_jax.models import networks as networks_lib
from dsd_jax.schedule import NoiseSchedule
from dsd_jax.training import autoencoder, common, corpus, diffusion, export, stage
from dsd_jax.training.views import Views, composite


@dataclass(frozen=True)
class Settings:
    """Train Toybox, or score an exported prior.

    Attributes:
        objects: packed objects, as experiments/pack_objects.py writes them.
        out: folder of checkpoints, sample sheets and the exported prior.
        evaluate: score this exported folder and stop.
        continue_from: start from the weights of an exported folder instead of random ones.
        groups: groups of four views rendered of each object.
        palettes: colourings of each object.
        vae_minutes: training time of the autoencoder, without compiling; 0 keeps its weights.
        unet_minutes: training time of denoiser and text encoder, without compiling.
        vae_batch: pictures a step and device.
        unet_batch: groups of four views a step and device; as many single views come with them.
        vae_rate: peak learning rate of the autoencoder.
        unet_rate: peak learning rate of denoiser and text encoder.
        max_minutes: stop after this long, ready to be continued.
        limit: use only the first so many objects (0: all), for a trial.
        resolution: side of the pictures.
        small: miniature networks, for a trial on a CPU.
        seed: of everything random.
    """

    objects: Path
    out: Path = Path("checkpoints/toybox")
    evaluate: Path | None = None
    continue_from: Path | None = None
    groups: int = 12
    palettes: int = 4
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
    if settings.evaluate:
        from dsd_jax.training import evaluate

        evaluate.run(settings.evaluate, data, settings.out, log)
        return 0
    settings.out.mkdir(parents=True, exist_ok=True)
    mesh = common.data_mesh()
    log(f"{len(data)} objects, {mesh.size} x {jax.devices()[0].device_kind}")
    origin = settings.continue_from
    text = export.prepare_text(
        data, settings.palettes, settings.out, tokenizer=origin and origin / "tokenizer"
    )
    networks = networks_lib.build(
        *export.configs(len(text.tokenizer), settings.resolution, settings.small),
        dtype=jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32,
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
    step = UNetStep(networks, params, training, text.tokenizer, settings, mesh)
    latents_file, vae_done = settings.out / "latents.npy", settings.out / "vae_params.safetensors"
    if not latents_file.exists():
        rgba = render(data, indices, views, settings, mesh, step)
        vae, finished = train_vae(networks, params["vae"], rgba, weight, settings, mesh, deadline)
        if not finished:
            return pause()
        pytrees.save_tree(vae_done, vae)
        step.wait()
        encode(networks, vae, rgba, text, indices, mesh, latents_file)
        del rgba
    params["vae"] = pytrees.load_tree(vae_done, networks_lib.param_shapes(networks)["vae"])
    latents = np.load(latents_file, mmap_mode="r")
    scaling = float(1 / np.std(np.asarray(latents[::7, ::3, 0], np.float32)))
    state, finished = step.train(dataclasses.replace(training, latents=latents), scaling, deadline)
    params = {"vae": params["vae"], **jax.device_get(state.average)}
    export.save(
        settings.out / "export",
        settings.resolution,
        settings.small,
        params,
        scaling,
        data,
        settings.out / "tokenizer",
    )
    log(f"exported {settings.out / 'export'}, {(time.time() - start) / 60:.1f} min in all")
    return 0 if finished else pause()


def pause() -> int:
    log("stopped at --max-minutes: run the same command again to continue")
    return 0


def render(data, indices, views, settings, mesh, unet_step):
    """All views, on the devices, [n, v, h, w, 4] uint8 sharded by object.

    The compiler of `unet_step` times its candidates on the first device. It must be alone there:
    beside other work it chose convolutions five times slower.
    """
    start, (compiling, *devices) = time.time(), mesh.devices.flat
    if not devices:
        unet_step.wait()
        devices = [compiling]
    rgba = pictures.render_views(
        data,
        np.arange(len(data)),
        views,
        resolution=settings.resolution,
        batch=8 * len(devices),
        devices=devices,
    )
    log(f"rendered {rgba.shape[0] * rgba.shape[1]} views in {time.time() - start:.0f} s")
    rgba = common.shard_objects(mesh, rgba[indices])
    log(f"views are on the devices after {time.time() - start:.0f} s")
    return rgba


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


def encode(networks, vae, rgba, text, indices, mesh, path) -> None:
    """Write the unscaled latents of all views in all palettes to `path`."""
    start = time.time()
    colours = text.angle[indices], text.tint[indices]
    latents = corpus.encode_views(mesh, networks.vae, vae, rgba, *colours)
    np.save(path, np.asarray(latents))
    log(f"encoded {latents.shape} in {time.time() - start:.0f} s")


class UNetStep:
    """Joint training of denoiser and text encoder; compiles in a thread of its own."""

    def __init__(self, networks, params, training, tokenizer, settings: Settings, mesh):
        schedule = NoiseSchedule.from_config(export.SCHEDULER)
        loss = diffusion.make_loss(
            networks.unet, networks.text_encoder, schedule, settings.unet_batch
        )
        length = tokenizer.model_max_length
        empty = tokenizer("", padding="max_length", max_length=length)["input_ids"]
        trained = {"unet": params["unet"], "text_encoder": params["text_encoder"]}
        self.settings, self.mesh = settings, mesh
        self.state = common.replicate(mesh, common.init_state(trained))
        self.empty = np.asarray(empty, np.int16)
        self.key = jax.random.key(settings.seed + 2)
        arguments = (self.state, common.shapes_of(mesh, training), self.constants(1.0), self.key)
        step = common.make_step(mesh, loss)
        pool = ThreadPoolExecutor(1)
        self.compiled = pool.submit(lambda: step.lower(*arguments, np.float32(0)).compile())
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until it is compiled."""
        self.compiled.result()

    def constants(self, scaling: float) -> dict:
        return common.replicate(self.mesh, {"empty": self.empty, "scaling": np.float32(scaling)})

    def train(self, training, scaling: float, deadline: float):
        """Final state, and whether the budget of minutes is spent."""
        return stage.train(
            self.state,
            self.compiled.result(),
            common.shard_objects(self.mesh, training),
            self.constants(scaling),
            self.key,
            folder=self.settings.out,
            name="unet",
            minutes=self.settings.unet_minutes,
            peak_rate=self.settings.unet_rate,
            deadline=deadline,
            log=log,
        )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
