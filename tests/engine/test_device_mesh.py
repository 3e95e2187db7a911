"""Four devices: uneven seeds, checkpoints for other devices, weights split over devices.

One test runs the others of this file in a process of its own, whose CPU counts as four devices.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_colours import Machine
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from dsd_jax.engine import loop, memory
from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.plan import Devices, make_plan
from dsd_jax.models import attention
from dsd_jax.recipe.viewpoints import Shared

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # as in test_generate.py
SEEDS = [8, 3, 5, 1, 2]
# As of devices that have a memory each.
APART = memory.ON_CPU._replace(together=False, program=0, refining=0, compiling=0)
four = pytest.mark.skipif(jax.device_count() != 4, reason="test_on_four_devices runs it")


def test_on_four_devices():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", __file__,
         "-k", "not test_on_four_devices"],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                          "JAX_PLATFORMS": "cpu"},
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


@pytest.fixture(scope="module", autouse=True)
def needs():
    """The test's prior has no networks whose memory could be estimated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "needs", lambda *_: memory.Needs(100, 0, 1, 2, 3, 4, 0, 0, 0))
        patch.setattr(memory, "ON_CPU", APART)
        yield


@pytest.fixture(scope="module")
def run(task):
    """(folder, devices) -> each seed's state after all steps, or after `stop`."""
    machine = Machine(task)

    def go(folder, devices, stop=10**6):
        rows = machine.run(SEEDS, folder, stop, Devices(devices, 1.0))
        return {s: jax.tree.map(lambda leaf, i=i: leaf[i], rows) for i, s in enumerate(SEEDS)}

    return go


@pytest.fixture(scope="module")
def on_one(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), 1)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for seed, state in expected.items():
        assert found[seed].seed == seed and found[seed].step == state.step
        chex.assert_trees_all_close(
            found[seed].params, state.params, atol=TOLERANCE, rtol=TOLERANCE
        )


@four
def test_five_seeds_on_four_devices_are_those_of_one(run, on_one, task, tmp_path):
    """Two each on three of them; one copy."""
    plan = make_plan(task, SEEDS, Devices(0, 1.0))
    assert plan.chunks == [[*SEEDS, SEEDS[-1]]]
    assert plan.device_mesh.shape == {"seed": 3}
    assert str(plan).startswith("5 seeds over 3 devices; memory: ")
    assert_same(run(tmp_path, 4), on_one)


@four
@pytest.mark.parametrize(("first", "then"), [(4, 1), (1, 4)])
def test_a_checkpoint_goes_on_on_another_number_of_devices(run, on_one, first, then, tmp_path):
    begun = run(tmp_path, first, stop=9)
    assert all(0 < state.step < 40 for state in begun.values())
    assert_same(run(tmp_path, then), on_one)


@four
def test_weights_are_split_and_give_the_same(task):
    """Each device holds a part; vectors and what cannot be divided are whole."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(3, 6, 8)).astype(np.float32),
        "odd": rng.normal(size=(3, 5)).astype(np.float32),
        "bias": np.ones(8, np.float32),
    }
    states = {"x": rng.normal(size=(2, 6)).astype(np.float32)}

    def step(state, shared):
        y = jnp.einsum("i,kio->o", state["x"], shared.prior["kernel"]) + shared.prior["bias"]
        x = jnp.tanh(y[:6] + shared.prior["odd"].sum())
        return {"x": x}, {"loss": jnp.sum(y)}

    found = []
    for model in (1, 2):
        mesh = seed_mesh(2, model=model)
        placed, shared = place(mesh, dict(states), Shared(weights, None))
        if model == 2:
            assert mesh.shape == {"seed": 2, "model": 2}
            sizes = {k: v.addressable_shards[0].data.shape for k, v in shared.prior.items()}
            assert sizes == {"kernel": (3, 6, 4), "odd": (3, 5), "bias": (8,)}
        block = loop.make_block(step, lambda state: state, 2, mesh)
        after, metrics = block(placed, 0, 5, shared)
        assert {shard.data.shape for shard in after["x"].addressable_shards} == {(1, 6)}
        found.append((jax.device_get(after), jax.device_get(metrics)))
    chex.assert_trees_all_close(*found, rtol=1e-5)


@four
@pytest.mark.parametrize(("heads", "each"), [(4, 2), (3, 3)])
def test_where_weights_are_split_each_device_asks_cudnn_for_its_heads(monkeypatch, heads, each):
    """Of all heads where they cannot be shared out evenly."""
    asked, real = [], jax.nn.dot_product_attention

    def noted(query, *args, implementation, **kwargs):
        asked.append((query.shape[2], implementation))
        return real(query, *args, implementation="xla", **kwargs)

    keys = jax.random.split(jax.random.key(1), 3)
    qkv = [jax.random.normal(key, (2, 1, 6, 8 * heads)) for key in keys]
    one = partial(attention.attend, heads=heads)
    expected = jax.vmap(one)(*qkv)
    monkeypatch.setattr(attention, "implementation", lambda *args: "cudnn")
    monkeypatch.setattr(jax.nn, "dot_product_attention", noted)
    mesh = jax.make_mesh((2, 2), ("seed", "model"), axis_types=(AxisType.Auto,) * 2)
    seeds = P("seed")
    split = jax.shard_map(
        jax.vmap(one), mesh=mesh, in_specs=seeds, out_specs=seeds, axis_names={"seed"},
        check_vma=False,
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(split)(*qkv), expected, rtol=1e-5, atol=1e-6)
    assert asked == [(each, "cudnn")]


@four
def test_the_prior_is_split_where_it_does_not_fit(task):
    """100 bytes of prior, 10 a seed."""
    fits = make_plan(task, SEEDS, Devices(0, 115e-9))
    assert (fits.model, fits.device_mesh.size, len(fits.chunks)) == (1, 3, 2)
    split = make_plan(task, SEEDS, Devices(0, 65e-9))
    assert (split.model, dict(split.device_mesh.shape)) == (2, {"seed": 2, "model": 2})
    assert split.bytes_needed == 60
    assert "over 4 devices, the prior split over 2;" in str(split)
    whole = make_plan(task, SEEDS, Devices(0, 1.0, shard_prior=4))
    assert whole.device_mesh.shape == {"seed": 1, "model": 4}
    with pytest.raises(ValueError, match="--max-memory-gb is 3e-08"):
        make_plan(task, SEEDS, Devices(0, 30e-9))


@four
def test_devices_that_share_a_memory_share_what_may_be_used_of_it(task, monkeypatch):
    """100 bytes of prior on each, 10 a seed, 1000 of the program."""
    together = APART._replace(together=True, program=1000)
    monkeypatch.setattr(memory, "ON_CPU", together)
    fits = make_plan(task, range(8), Devices(0, 1480e-9))
    assert (fits.device_mesh.size, fits.chunks) == (4, [list(range(8))])
    assert fits.bytes_needed == 1000 + 4 * (100 + 2 * 10) == 1480
    half = make_plan(task, range(8), Devices(0, 1479e-9))
    assert (half.device_mesh.size, len(half.chunks)) == (4, 2) and half.bytes_needed == 1440
    fewer = make_plan(task, range(8), Devices(0, 1250e-9))
    assert (fewer.device_mesh.size, len(fewer.chunks[0])) == (2, 4)
    assert fewer.bytes_needed == 1240 and "over 2 devices; memory: the program 1e-06 GB" in str(
        fewer
    )
    one = make_plan(task, range(8), Devices(0, 1110e-9))
    assert (one.device_mesh.size, one.chunks) == (1, [[seed] for seed in range(8)])
    with pytest.raises(ValueError, match=r"one seed needs about .* or give --max-memory-gb 0\.01$"):
        make_plan(task, range(8), Devices(0, 1109e-9))


@four
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (Devices(5, 1.0), "--devices must be from 1 to the 4 that there are, not 5"),
        (Devices(-1, 1.0), "--devices must be from 1 to the 4 that there are, not -1"),
        (Devices(0, 1.0, 3), "--shard-prior 3 does not divide the devices, of which there are 4"),
        (Devices(1, 1.0, 2), "of which there is 1"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_refused(task, devices, said):
    with pytest.raises(ValueError, match=said):
        make_plan(task, SEEDS, devices)
