"""Seeded mutations of priors' files: read, or refused in one line, see `mutations`."""

import sys
from pathlib import Path

import pytest
from mutations import check, checked

CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "model_index.json")  # fmt: skip
TOKENIZER = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
             "tokenizer/special_tokens_map.json", "tokenizer/vocab.json")  # fmt: skip
WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
           "text_encoder/model.safetensors")  # fmt: skip
PORT = ("unet/config.json", "image_encoder/config.json", "model_index.json")
# {kind: (fixture of the prior, its files that are spoilt)}
KINDS = {
    "configs": ("tiny_prior_folder", CONFIGS),
    "tokenizer": ("tiny_prior_folder", TOKENIZER),
    "headers": ("tiny_prior_folder", WEIGHTS),
    "one file": ("mvdream_file", ("mvdream.json",)),
    "port": ("zero123_folder", PORT),
}


def use(folder: Path) -> None:
    """What the programs do with a prior before they compile their step."""
    import jax
    import jax.numpy as jnp

    from dsd_jax.priors import Picture, Viewpoint, load_prior

    file = folder / "mvdream.safetensors"
    prior = load_prior(file if file.is_file() else folder)
    prior.warnings("a red house")
    picture = Picture(jnp.ones((16, 16, 3)), jnp.zeros(()))
    text = prior.condition(picture if "image_encoder" in prior.params else "a red house")
    x, t = jnp.zeros(prior.latent_shape), jnp.int32(prior.schedule.last)
    if x.size < 10**6:
        view = Viewpoint(jnp.zeros(()), jnp.zeros(()), jnp.eye(4))
        jax.eval_shape(lambda x: prior.denoiser_at(prior.params, text, view)(7.5)(x, t), x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_read_or_refused_in_one_line(kind, request, tmp_path):
    source = request.getfixturevalue(KINDS[kind][0])
    source = source if source.is_dir() else source.parent
    checked(__file__, kind, source, tmp_path / "spoilt")


if __name__ == "__main__":
    check(sys.argv[1], KINDS[sys.argv[1]][1], [use], Path(sys.argv[2]), Path(sys.argv[3]))
