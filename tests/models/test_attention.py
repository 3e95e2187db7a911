"""attention.py against float64 NumPy, and its cross-view form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models import attention


def brute_force(query, key, value, heads, causal):
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros_like(query)
    width = query.shape[-1] // heads
    for b, head in np.ndindex(len(query), heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[b, :, part] @ key[b, :, part].T / np.sqrt(width)
        if causal:
            logits = np.where(np.tri(*logits.shape, dtype=bool), logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[b, :, part] = weights / weights.sum(-1, keepdims=True) @ value[b, :, part]
    return out


@pytest.mark.parametrize(("tokens", "causal"), [(5, True), (5, False), (3, False)])
def test_attend(tokens, causal):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, 5, 12), (2, tokens, 12), (2, tokens, 12)]
    inputs = [3 * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    out = attention.attend(*inputs, heads=3, causal=causal)
    np.testing.assert_allclose(out, brute_force(*inputs, 3, causal), rtol=1e-5, atol=1e-5)


def test_of_one_key_all_attention_is_there():
    q, k, v = (jax.random.normal(key, (2, 5, 8)) for key in jax.random.split(jax.random.key(1), 3))
    out = attention.attend(q, k[:, :1], v[:, :1], 2)
    np.testing.assert_array_equal(out, np.broadcast_to(v[:, :1], q.shape))


@pytest.mark.parametrize(("tokens", "differentiated"), [(7, "xla"), (6, "cudnn")])
def test_cudnn_has_no_gradient_of_odd_lengths(monkeypatch, tokens, differentiated):
    """A stand-in for the kernel notes who is asked; values and gradients are XLA's."""
    asked, real = [], jax.nn.dot_product_attention

    def noted(*args, implementation, **kwargs):
        asked.append(implementation)
        return real(*args, implementation="xla", **kwargs)

    q, k, v = (jax.random.normal(x, (1, 6, 8)) for x in jax.random.split(jax.random.key(1), 3))
    k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0)))[:, :tokens] for x in (k, v))
    loss = lambda *qkv: jnp.sum(attention.attend(*qkv, 2) ** 2)  # noqa: E731
    expected = loss(q, k, v), jax.grad(loss, (0, 1, 2))(q, k, v)
    monkeypatch.setattr(attention, "implementation", lambda *args: "cudnn")
    monkeypatch.setattr(jax.nn, "dot_product_attention", noted)
    np.testing.assert_allclose(loss(q, k, v), expected[0], rtol=1e-5)
    assert asked == ["cudnn"]
    asked.clear()
    grads = jax.grad(loss, (0, 1, 2))(q, k, v)
    assert set(asked) == {differentiated}
    for found, wanted in zip(grads, expected[1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_implementation_asks_for_cudnn_only_where_it_exists(monkeypatch):
    class Device:
        compute_capability = "9.0"

    assert attention.implementation(jnp.bfloat16, 64) == "xla"  # these tests run on a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Device])
    assert attention.implementation(jnp.bfloat16, 64) == "cudnn"
    assert attention.implementation(jnp.float32, 64) == "xla"
    assert attention.implementation(jnp.float16, 512) == "xla"
    assert attention.implementation(jnp.float16, 20) == "xla"
    monkeypatch.setattr(Device, "compute_capability", "7.5")
    assert attention.implementation(jnp.float16, 64) == "xla"


def test_gelu_of_the_feed_forward_is_exact():
    """With identity weights GatedGelu is x gelu(x); the tanh form differs by 1e-4 at x = 2."""
    params = {"proj": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}}
    out = attention.GatedGelu(1).apply({"params": params}, jnp.full((1, 1, 1), 2.0))
    assert float(out[0, 0, 0]) == pytest.approx(2 * 2 * 0.977249868, rel=1e-6)


def test_views_share_self_attention_and_nothing_else():
    """With num_views, self-attention sees the tokens of a group; text is still per view."""
    block = attention.TransformerBlock(heads=2)
    keys = jax.random.split(jax.random.key(0), 3)
    x, text = jax.random.normal(keys[0], (4, 3, 8)), jax.random.normal(keys[1], (4, 2, 6))
    params = jax.jit(block.init)(keys[2], x, text)
    apply = jax.jit(block.apply, static_argnums=3)
    joint = apply(params, x, text, 2)
    same_text = jnp.broadcast_to(text[:1], text.shape)
    merged = apply(params, x.reshape(2, 6, 8), same_text[:2], 1).reshape(x.shape)
    np.testing.assert_allclose(apply(params, x, same_text, 2), merged, rtol=1e-5, atol=1e-5)
    moved = apply(params, x, text.at[1].add(1.0), 2)
    np.testing.assert_array_equal(moved[jnp.array([0, 2, 3])], joint[jnp.array([0, 2, 3])])
    assert jnp.abs(moved[1] - joint[1]).max() > 1e-3
