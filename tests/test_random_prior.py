"""experiments/tools/random_prior.py, and the published shapes that it takes its networks from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import load_script

from dsd_jax.models import architectures, clip_vision
from dsd_jax.models.architectures import ARCHITECTURES, random_params
from dsd_jax.models.config import ClipVisionConfig, UNetConfig
from dsd_jax.models.networks import build, count, param_shapes, unet_param_shapes
from dsd_jax.models.unet import UNet
from dsd_jax.priors import load_prior

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = architectures.Architecture(
    {
        "sample_size": 8,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 32,
        "layers_per_block": 1,
        "attention_head_dim": 2,
    },
    {"block_out_channels": [32, 32], "sample_size": 16},
    {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "small", SMALL)
    return load_script("random_prior")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sd15", {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        ("sd21-base", {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}),
    ],
)
def test_parameters_are_as_many_as_published(name, expected):
    shapes = param_shapes(build(*ARCHITECTURES[name]))
    assert {part: count(tree) for part, tree in shapes.items()} == expected


def test_zero123_has_as_many_parameters_as_published():
    unet = UNet(UNetConfig.from_dict(architectures.UNET_ZERO123))
    vision = clip_vision.ClipVision(ClipVisionConfig.from_dict(architectures.CLIP_VISION_L))
    assert count(unet_param_shapes(unet)) == 859_520_964 + 3 * 3 * 4 * 320
    assert count(clip_vision.param_shapes(vision)) == 303_966_208


def test_a_written_prior_predicts_noise_of_unit_size(script, tmp_path):
    """And is the same for the same seed, in either type of file; prompts are 77 tokens long."""
    command = ["--architecture", "small", "--out", str(tmp_path / "half")]
    assert script.main(command) == 0
    assert script.main([*command[:-1], str(tmp_path / "full"), "--dtype", "float32"]) == 0
    prior, full = load_prior(tmp_path / "half"), load_prior(tmp_path / "full")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
        prior.params,
        full.params,
    )
    text = prior.encode_prompt(prior.params, ["a red house", ""])
    assert text.shape == (2, 77, 32)
    x = jax.random.normal(jax.random.key(0), (2, *prior.latent_shape))
    for t in (1, 999):
        eps = jax.jit(prior.network(prior.params))(x, jnp.full(2, t), {"text": text})
        assert 0.5 < jnp.std(eps) < 2


def test_seeds_differ_and_repeat():
    shapes = {"layer": {"kernel": jnp.zeros((50, 40)), "bias": jnp.zeros(40)}}
    a, again, b = (random_params(shapes, seed)["layer"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1
    assert a.std() == pytest.approx(50**-0.5, rel=0.1)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--architecture", "sd21"], "'sd21' is not one of sd15, sd21-base"),
        (["--seed", "-1"], "--seed must not be negative, not -1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(script, tmp_path, capsys, flags, message):
    assert script.main(["--out", str(tmp_path / "prior"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "prior").exists()
