"""clip_vision.py in miniature: shapes, names, what the class token sees, preprocessing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models import keys
from dsd_jax.models.clip_vision import ClipVision, from_torch, normalise_image, param_shapes
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
    params = from_torch(NETWORK, tensors)
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


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("visual_projection.weight", None, r"weight should be \(6, 16\), is None"),
        ("visual_projection.weight", np.zeros((6, 8)), r"weight should be \(6, 16\), is \(6, 8\)"),
        ("visual_projection.bias", np.zeros(6), r"bias should be None, is \(6,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(tensors, key, value, said):
    changed = {name: array for name, array in tensors.items() if name != key}
    with pytest.raises(ValueError, match=said):
        from_torch(NETWORK, changed if value is None else {**changed, key: value})


def test_position_ids_of_older_files_are_ignored(tensors):
    old = {**tensors, "vision_model.embeddings.position_ids": np.arange(10)[None]}
    jax.tree.map(
        np.testing.assert_array_equal, from_torch(NETWORK, old), from_torch(NETWORK, tensors)
    )


def test_normalise_image_by_hand():
    """A plain colour stays plain; its channels lose CLIP's mean and gain CLIP's scale."""
    image = jnp.broadcast_to(jnp.array([0.48145466, 0.0, 1.0]), (50, 300, 3))
    normalised = jax.jit(normalise_image)(image)
    assert normalised.shape == (224, 224, 3)
    expected = [0, -0.4578275 / 0.26130258, (1 - 0.40821073) / 0.27577711]
    np.testing.assert_allclose(normalised, np.broadcast_to(expected, (224, 224, 3)), atol=1e-5)


def test_normalise_image_averages_what_it_shrinks():
    """Stripes of one pixel, black and white, become grey rather than alias (by about 2)."""
    stripes = jnp.tile(jnp.array([0.0, 1.0])[:, None], (1, 32, 3)).reshape(1, 64, 3)
    normalised = normalise_image(jnp.tile(stripes, (64, 1, 1)), side=8)
    grey = normalise_image(jnp.full((8, 8, 3), 0.5), side=8)
    assert jnp.abs(normalised - grey).max() < 0.1
