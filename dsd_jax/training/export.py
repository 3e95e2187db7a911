"""The exported prior: its configuration, its text side, and the folder it is written to."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.data import captions
from dsd_jax.data.objects import Objects
from dsd_jax.files import atomic_path
from dsd_jax.models import networks as networks_lib
from dsd_jax.models.tokenizer import train_tokenizer
from dsd_jax.models.weights import Pipeline, load_pipeline, save_pipeline
from dsd_jax.training import corpus, growing
from dsd_jax.training.settings import TrainingSettings

WORDINGS = 12
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "leading",
}


def configs(vocabulary: int, settings: TrainingSettings) -> tuple:
    """config.json dictionaries of unet, vae and text encoder."""
    small, resolution, pictures = settings.small, settings.resolution, 3 + settings.opacity
    channels, width = ((32, 64), 64) if small else ((64, 128, 128), 192)
    unet = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": resolution // 8,
        "in_channels": settings.latent_channels,
        "out_channels": settings.latent_channels,
        "block_out_channels": list(channels),
        "down_block_types": ["CrossAttnDownBlock2D"] * len(channels),
        "up_block_types": ["CrossAttnUpBlock2D"] * len(channels),
        "layers_per_block": 1,
        "cross_attention_dim": width,
        "attention_head_dim": [max(1, c // 32) for c in channels],
        "use_linear_projection": True,
        "norm_num_groups": 16,
        "camera_dim": 16,
    }
    vae = {
        "_class_name": "AutoencoderKL",
        "sample_size": resolution,
        "in_channels": pictures,
        "out_channels": pictures,
        "latent_channels": settings.latent_channels,
        "block_out_channels": [8, 16, 16, 16] if small else [32, 64, 96, 96],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "scaling_factor": 1.0,
    }
    text_encoder = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2 if small else 4,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    return unet, vae, text_encoder


class TextSide(NamedTuple):
    """Prompts and palettes of all objects.

    Attributes:
        tokenizer: transformers' CLIPTokenizer.
        tokens: [n, k, m, 5, l] int16, see `corpus.tokenise`.
        angle, tint: [n, k] and [n, k, 3], see `corpus.Palettes`.
    """

    tokenizer: Any
    tokens: np.ndarray
    angle: np.ndarray
    tint: np.ndarray


def prepare_text(
    data: Objects, palettes: int, out: Path, seed: int = 0, tokenizer: Path | None = None
) -> TextSide:
    """Made once, then read from OUT/tokenizer and OUT/text.npz.

    `tokenizer` is the folder of one to use; a text encoder whose training goes on needs its own.
    Without it one is trained on the prompts.
    """
    from transformers import CLIPTokenizer

    folder, cache = out / "tokenizer", out / "text.npz"
    if not cache.exists():
        rng = np.random.default_rng(seed + 1)
        chosen = corpus.make_palettes(rng, data, palettes)
        prompts = corpus.wordings(rng, data, chosen, WORDINGS)
        flat = sorted({p for rows in prompts for row in rows for p in row})
        if tokenizer:
            shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
        else:
            phrased = [captions.with_view(p, v) for p in flat for v in corpus.PHRASES[1:]]
            train_tokenizer(flat * 4 + phrased, folder)
        tokens = corpus.tokenise(CLIPTokenizer.from_pretrained(folder), prompts)
        with atomic_path(cache) as path, open(path, "wb") as file:
            np.savez_compressed(file, tokens=tokens, angle=chosen.angle, tint=chosen.tint)
    with np.load(cache) as file:
        return TextSide(CLIPTokenizer.from_pretrained(folder), **file)


def load_params(folder: Path, networks) -> dict:
    """Weights of an exported folder, to continue from.

    Its pictures and latents may have fewer channels: see `growing.grown`. Raises ValueError where
    something else has another shape.
    """
    fresh = networks_lib.init_params(networks, jax.random.key(0))
    layers = {"vae": growing.VAE, "unet": growing.UNET}
    return growing.all_grown(folder, load_pipeline(folder).params, fresh, layers)


def save(settings: TrainingSettings, params: dict, scaling: float, data: Objects) -> None:
    """Write OUT/export in diffusers layout (float16), with the list of words it was trained on."""
    folder, tokenizer = settings.out / "export", settings.out / "tokenizer"
    vocabulary = len(json.loads((tokenizer / "vocab.json").read_text()))
    unet, vae, text = configs(vocabulary, settings)
    networks = networks_lib.build(unet, {**vae, "scaling_factor": scaling}, text)
    pipeline = Pipeline(networks, params, scheduler=SCHEDULER)
    save_pipeline(folder, pipeline, tokenizer=tokenizer, dtype=np.float16)
    words = captions.known_words(data.caption, data.category)
    captions.save_known_words(folder / "words.json", words)
