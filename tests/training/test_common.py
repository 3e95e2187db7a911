"""The pieces of every training stage: rate, stacks, optimiser, step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsd_jax.training import common


def test_learning_rate():
    learning_rate = common.learning_rate
    assert learning_rate(0.0, 0, 1.0, warmup_steps=10) == pytest.approx(0.1)
    assert learning_rate(0.5, 100, 1.0, warmup_steps=10) == pytest.approx(0.51)
    assert learning_rate(1.0, 100, 1.0, warmup_steps=10) == pytest.approx(0.02)


def test_gradient_is_the_mean_over_devices():
    """One step equals plain Adam on the sum of the losses, for what is no kernel."""
    mesh, w = common.data_mesh(), jnp.array([[1.0, -2.0]])
    params = {"scale": w}
    state = common.init_state(params)

    def half(name):
        return lambda p, d, c, k: (0.5 * jnp.mean((p["scale"] - d) ** 2), {name: jnp.max(d)})

    step = common.make_step(mesh, [half("first"), half("second")], params)
    data = common.shard_objects(mesh, jnp.zeros((mesh.size, 1, 2)))
    key = jax.random.key(0)
    ahead = step.compile(state, common.shapes_of(mesh, data), {}, key)
    new, seen = ahead(state, data, {}, key, np.float32(0.1))
    gradient = w / jnp.maximum(1.0, jnp.linalg.norm(w))  # d mean(w^2) = w for two entries
    reference = optax.adamw(0.1, b1=0.9, b2=0.99, weight_decay=0.01)
    update, _ = reference.update(gradient, reference.init(w), w)
    after = common.unstacked(new.params, params)["scale"]
    np.testing.assert_allclose(after, w + update, rtol=1e-5)
    assert set(seen) == {"first", "second", "gradient_norm"} and int(new.step) == 1
    again, _ = step(common.init_state(params), data, {}, key, np.float32(0.1))
    np.testing.assert_allclose(common.unstacked(again.params, params)["scale"], after, rtol=1e-6)


def test_stacks_hold_what_they_were_made_of():
    rng = np.random.default_rng(0)
    shapes = {
        "conv": {"kernel": (3, 3, 4, 8), "bias": (8,)}, "norm": {"bias": (8,)},
        "dense": {"kernel": (36, 8)}, "words": {"embedding": (5, 8)},
    }  # fmt: skip
    params = {
        part: {name: rng.normal(size=shape) for name, shape in own.items()}
        for part, own in shapes.items()
    }
    stacks = common.stacked(params)
    found = {name: stack.shape for name, stack in stacks.items()}
    assert found == {"kernel_36_8": (2, 36, 8), "other_8": (2, 8), "other_5_8": (1, 5, 8)}
    chex.assert_trees_all_close(common.unstacked(stacks, params), params)


def test_kernels_turn_at_equal_speed_in_all_directions():
    """Muon's step is nearly orthogonal, with the mean square of Adam's, of convolutions too."""
    optimiser = common.optimiser(weight_decay=0.0)
    gradient = jax.random.normal(jax.random.key(0), (3, 3, 4, 8)) * jnp.geomspace(1e-3, 1, 8)
    other = {"kernel": 5 * gradient[0, 0]}
    params = {"conv_in": {"kernel": gradient, "bias": jnp.ones(8)}, "out": other, "to_k": other}

    def stepped(params):
        stacks = common.stacked(params)
        return common.unstacked(optimiser.update(stacks, optimiser.init(stacks), stacks)[0], params)

    updates = stepped(params)
    step = np.asarray(updates["conv_in"]["kernel"]).reshape(36, 8)
    lengths = np.linalg.svd(step, compute_uv=False)
    assert lengths.max() < 4 * lengths.min()
    assert np.linalg.svd(np.reshape(gradient, (36, 8)), compute_uv=False)[-1] < 1e-2
    assert 0.2 * 0.8 < np.sqrt(np.mean(step**2)) < 0.2 * 1.2
    np.testing.assert_allclose(updates["conv_in"]["bias"], 1, rtol=1e-5)
    alone = stepped({"out": other})
    for name in ("out", "to_k"):  # of one size, so stepped as a stack
        np.testing.assert_allclose(updates[name]["kernel"], alone["out"]["kernel"], rtol=1e-4)
