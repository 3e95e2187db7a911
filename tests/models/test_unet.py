"""unet.py: what views and cameras do, and what is refused. Values: test_golden, tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

VIEWS = 4


@pytest.fixture(scope="module")
def unet(networks, params):
    """apply(x, t, text, camera, num_views), jitted."""
    apply = jax.jit(networks.unet.apply, static_argnums=5)
    return lambda *args: apply({"params": params["unet"]}, *args)


@pytest.fixture(scope="module")
def inputs():
    """Two groups of four views: x, t, text, camera."""
    keys = jax.random.split(jax.random.key(0), 3)
    b = 2 * VIEWS
    x, text, camera = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(b, 8, 8, 4), (b, 5, 24), (b, 16)], strict=True)
    )
    # t and text belong to the object, as a prompt does.
    return x, jnp.repeat(jnp.array([30, 700]), VIEWS), jnp.repeat(text[:2], VIEWS, 0), camera


def test_one_view_is_each_image_by_itself(unet, inputs):
    together = unet(*inputs, 1)
    for i in (0, 5):
        alone = unet(*(a[i : i + 1] for a in inputs), 1)
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_permuting_the_views_permutes_the_result(unet, inputs):
    order = np.array([2, 0, 3, 1, 4, 5, 6, 7])
    permuted = unet(*(a[order] for a in inputs), VIEWS)
    np.testing.assert_allclose(permuted, unet(*inputs, VIEWS)[order], rtol=1e-4, atol=1e-5)


def test_a_view_acts_on_its_own_group_only(unet, inputs):
    x, *rest = inputs
    before, after = unet(x, *rest, VIEWS), unet(x.at[1].add(1.0), *rest, VIEWS)
    change = jnp.abs(after - before).max((1, 2, 3))
    assert (change[:VIEWS] > 1e-4).all() and (change[VIEWS:] == 0).all()
    alone = jnp.abs(unet(x.at[1].add(1.0), *rest, 1) - unet(x, *rest, 1)).max((1, 2, 3))
    assert alone[1] > 1e-4 and (jnp.delete(alone, 1) == 0).all()


def test_camera_adds_to_the_time_embedding(networks, params, unet, inputs):
    x, t, text, camera = inputs
    assert jnp.abs(unet(x, t, text, camera, 1) - unet(x, t, text, None, 1)).max() > 1e-3
    mute = jax.tree.map(jnp.zeros_like, params["unet"]["camera_embedding"])
    muted = {"params": {**params["unet"], "camera_embedding": mute}}
    out = jax.jit(networks.unet.apply)(muted, x, t, text, camera)
    np.testing.assert_allclose(out, unet(x, t, text, None, 1), rtol=1e-5, atol=1e-6)


def test_half_precision_stays_close(networks, params, unet, inputs):
    half = networks.unet.clone(dtype=jnp.dtype(jnp.bfloat16))
    out = jax.jit(half.apply)({"params": params["unet"]}, *inputs)
    assert out.dtype == jnp.bfloat16
    exact = unet(*inputs, 1)
    assert jnp.linalg.norm(out - exact) < 0.03 * jnp.linalg.norm(exact)


def test_vmap_over_seeds_equals_a_loop(networks, params, inputs):
    def one(x, camera):
        t, text = jnp.array([500]), inputs[2][:1]
        return networks.unet.apply({"params": params["unet"]}, x[None], t, text, camera[None])[0]

    x, camera = inputs[0][:3], inputs[3][:3]
    stacked = jnp.stack([jax.jit(one)(a, b) for a, b in zip(x, camera, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(x, camera), stacked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: jnp.zeros((8, 8, 8, 3))}, r"x must be \[b, h, w, 4\]"),
        ({0: jnp.zeros((8, 7, 8, 4))}, "multiples of 2"),
        ({2: jnp.zeros((8, 5, 23))}, r"text must be \[8, l, 24\]"),
        ({3: jnp.zeros((8, 12))}, r"camera must be \[8, 16\]"),
        ({4: 3}, "not a multiple of num_views = 3"),
    ],
)
def test_wrong_shapes_are_named(networks, params, inputs, change, message):
    args = [*inputs, 1]
    for place, value in change.items():
        args[place] = value
    with pytest.raises(ValueError, match=message):
        networks.unet.apply({"params": params["unet"]}, *args)
