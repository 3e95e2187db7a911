"""Scores and sample sheets of an exported prior; `experiments/train_prior.py --evaluate`."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax import ode
from dsd_jax.data import captions, pictures
from dsd_jax.data.objects import FOV_Y, Objects
from dsd_jax.export.pictures import contact_sheet, save_png
from dsd_jax.files import write_json
from dsd_jax.guidance import below
from dsd_jax.metrics import judge
from dsd_jax.metrics.bank import Bank, load_bank
from dsd_jax.metrics.diversity import diversity
from dsd_jax.metrics.efficientnet import features_in_batches, load_efficientnet
from dsd_jax.priors import Viewpoint
from dsd_jax.priors.stable_diffusion import Prior, load
from dsd_jax.rendering.cameras import DISTANCE, orbit
from dsd_jax.training import autoencoder

SEEDS = 8
GUIDANCE = 5.0
LIMITED = 0.6  # share of the timesteps, counted from the clean end, that is guided at all
DIVERSE = ("house", "chair", "tree", "fish", "car")


def sample(
    prior: Prior,
    prompts: Sequence[str],
    seeds: int,
    azimuths_deg: Sequence[float] = (30.0,),
    elevation_deg: float = 15.0,
    guidance: float = GUIDANCE,
    steps: int = 30,
    shared_noise: bool = True,
    guidance_below: float = 1.0,
) -> np.ndarray:
    """DDIM samples [prompts, seeds, views, H, W, 3] in [0, 1] at the given azimuths.

    Four azimuths are sampled together, with cross-view attention, any other number one by one.
    Seed k starts from the same noise for every prompt, and for every view if `shared_noise`.
    Guidance acts up to the share `guidance_below` of all timesteps, see `guidance.below`.
    """
    azimuth = jnp.radians(jnp.asarray(azimuths_deg))
    elevation = jnp.full_like(azimuth, jnp.radians(elevation_deg))
    matrices = orbit(azimuth, elevation, DISTANCE, FOV_Y).camera_to_world
    viewpoints = Viewpoint(azimuth, elevation, matrices)
    together = len(azimuths_deg) == 4
    grid = ode.linear_grid(steps, prior.schedule.last)
    noise = jax.random.normal(jax.random.key(0), (seeds, len(azimuth), *prior.latent_shape))
    noise = noise[:, :1] + 0 * noise if shared_noise else noise

    def group(params, text, noise, viewpoints):
        """Views of one object, [v, ...] for cross-view attention or [...] for a single view."""
        denoiser_at = prior.denoiser_at(params, text, viewpoints)
        t_high = guidance_below * prior.schedule.num_train_timesteps
        denoiser = below(denoiser_at, t_high)(guidance)
        x = ode.integrate(denoiser, prior.schedule, noise, grid, grid[-1]).xhat_t
        x = x if together else x[None]
        return jnp.clip(jax.vmap(partial(prior.decode, params))(x)[..., :3], 0, 1)

    @jax.jit
    def all_seeds(params, text):
        run = jax.vmap(partial(group, params, text), (0, None))
        if together:
            return run(noise, viewpoints)
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], viewpoints) for i in range(len(azimuth))]
        return jnp.concatenate([run(noise[:, i], place) for i, place in enumerate(each)], 1)

    texts = (prior.condition(prompt, view_prompts="none") for prompt in prompts)
    return np.stack([np.asarray(all_seeds(prior.params, text)) for text in texts])


def run(folder: Path, data: Objects, out: Path, log: Callable[[str], None] = print) -> dict:
    """Score the prior in `folder`; writes `out`/scores.json and the sample sheets."""
    out.mkdir(parents=True, exist_ok=True)
    prior, bank, network = load(folder), load_bank(), load_efficientnet()
    scores = {**reconstruction(prior, data), **categories(prior, bank, network, data, out)}
    log(f"psnr {scores['psnr_db']:.2f} dB, right category {scores['accepted']:.3f}")
    scores |= directions(prior, bank, network, out)
    log(f"directions {scores['direction']}, diversity {scores['diversity']}")
    write_json(out / "scores.json", scores)
    return scores


def reconstruction(prior: Prior, data: Objects, objects: int = 256) -> dict:
    """`autoencoder.Quality` on fresh views."""
    chosen = np.linspace(0, len(data) - 1, min(objects, len(data))).astype(int)
    plan = pictures.plan_views(np.random.default_rng(12345), len(chosen), 1)
    rgba = pictures.render_views(data, chosen, plan, resolution=prior.image_size)[:, 0]
    vae = prior.networks.vae
    return autoencoder.quality(vae, prior.params["vae"], rgba)._asdict()


def categories(prior: Prior, bank: Bank, network, data: Objects, out: Path) -> dict:
    """How often the judge accepts samples of the 40 largest categories, 8 seeds each."""
    names = [name for name, _ in Counter(data.category).most_common(40)]
    prompts = [captions.with_article(name) for name in names]
    images = sample(prior, prompts, SEEDS)
    save_png(out / "samples_40x8.png", contact_sheet(images[:, :, 0], labels=None, tile=64))
    features = features_in_batches(network, images)
    accepted = {
        name: float(judge.verdict(bank, name, rows, views).accepted.mean())
        for name, rows, views in zip(names, features, images, strict=True)
        if name in bank.categories
    }
    spread = {name: diversity(features[names.index(name)]) for name in DIVERSE if name in names}
    prompts = [captions.with_article(name) for name in DIVERSE]
    limited = features_in_batches(network, sample(prior, prompts, SEEDS, guidance_below=LIMITED))
    return {
        "accepted": float(np.mean(list(accepted.values()))),
        "accepted_per_category": accepted,
        "diversity": spread,
        "diversity_guided_late": dict(zip(DIVERSE, map(diversity, limited), strict=True)),
    }


def directions(prior: Prior, bank: Bank, network, out: Path) -> dict:
    """Direction scores of four categories, and a sheet of four views of eight seeds of each."""
    azimuths = (0.0, 90.0, 180.0, 270.0)
    prompts = [captions.with_article(name) for name in judge.DIRECTED]
    images = sample(prior, prompts, SEEDS, azimuths)
    sheet = np.concatenate(list(images.swapaxes(1, 2)))  # [4 prompts x 4 views, seeds, ...]
    save_png(out / "samples_views.png", contact_sheet(sheet.swapaxes(0, 1), labels=None, tile=64))
    single = sample(prior, prompts, SEEDS, (*azimuths, 0.0))[:, :, :4]

    def scores(images):
        features = features_in_batches(network, images)
        return {
            name: judge.direction_score(bank, name, rows, azimuths)
            for name, rows in zip(judge.DIRECTED, features, strict=True)
            if judge.has_front(bank, name)
        }

    return {"direction": scores(images), "direction_single_view": scores(single)}
