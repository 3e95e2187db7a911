"""clip_vision.py in miniature: shapes, names, what the class token sees, preprocessing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models import keys
from dsd_jax.models.clip_vision import ClipVision, param_shapes, preprocess
from dsd_jax.models.config import ClipVisionConfig

NETWORK = ClipVision(
    ClipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=12, patch_size=4, projection_dim=6,
    )
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def tensors():
    """Random weights under transformers' keys."""
    rng = np.random.default_rng(0)
    return {
        key: 0.3 * rng.normal(size=keys.torch_shape(path, leaf.shape)).astype(np.float32)
        for key, (path, leaf) in keys.flatten(param_shapes(NETWORK)).items()
    }


@pytest.fixture(scope="module")
def encode(tensors):
    places = keys.flatten(param_shapes(NETWORK))
    params = keys.unflatten(
        {path: keys.from_torch(path, tensors[key]) for key, (path, _) in places.items()}
    )
    return lambda image: jax.jit(NETWORK.apply)({"params": params}, image)


def test_keys_and_shapes_are_those_of_transformers(tensors):
    shapes = {key: array.shape for key, array in tensors.items()}
    assert shapes["vision_model.embeddings.class_embedding"] == (16,)
    assert shapes["vision_model.embeddings.patch_embedding.weight"] == (16, 3, 4, 4)
    assert shapes["vision_model.embeddings.position_embedding.weight"] == (10, 16)
    assert shapes["vision_model.pre_layrnorm.bias"] == (16,)
    assert shapes["vision_model.encoder.layers.1.mlp.fc1.weight"] == (32, 16)
    assert shapes["vision_model.post_layernorm.weight"] == (16,)
    assert shapes["visual_projection.weight"] == (6, 16)
    assert len(shapes) == 3 + 2 + 2 * 16 + 2 + 1


def test_every_patch_matters(encode):
    """Not causal: the class token comes first and sees all."""
    image = jax.random.normal(jax.random.key(0), (12, 12, 3))
    others = [image.at[4 * i, 4 * j].add(1) for i in range(3) for j in range(3)]
    embedded = encode(jnp.stack([image, *others]))
    assert embedded.shape == (10, 6) and jnp.isfinite(embedded).all()
    assert (jnp.abs(embedded[1:] - embedded[0]).max(-1) > 1e-3).all()


def test_images_of_other_sizes_are_refused(encode):
    with pytest.raises(ValueError, match=r"must be \[b, 12, 12, 3\], got \(1, 16, 16, 3\)"):
        encode(jnp.zeros((1, 16, 16, 3)))


def test_preprocess_by_hand():
    """A plain colour stays plain; its channels lose CLIP's mean and gain CLIP's scale."""
    image = jnp.broadcast_to(jnp.array([0.48145466, 0.0, 1.0]), (50, 300, 3))
    processed = jax.jit(preprocess)(image)
    assert processed.shape == (224, 224, 3)
    expected = [0, -0.4578275 / 0.26130258, (1 - 0.40821073) / 0.27577711]
    np.testing.assert_allclose(processed, np.broadcast_to(expected, (224, 224, 3)), atol=1e-5)


def test_preprocess_keeps_corners_and_ramps():
    """Corner pixels stay in place, so a ramp goes on from 0 to 1, but for the cubic's ends."""
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 9)[:, None, None], (9, 5, 3))
    red = 0.48145466 + 0.26862954 * preprocess(ramp, side=17)[:, 0, 0]
    np.testing.assert_allclose(red[::2], jnp.linspace(0, 1, 9), atol=1e-6)
    np.testing.assert_allclose(red[3:14], jnp.linspace(0, 1, 17)[3:14], atol=1e-6)
