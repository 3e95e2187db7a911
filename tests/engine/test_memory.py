"""The estimate of memory against what XLA says, and the chunks of seeds made from it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.distillation import METHODS
from dsd_jax.engine import memory
from dsd_jax.engine.plan import Task, make_plan
from dsd_jax.models import attention
from dsd_jax.models.architectures import ARCHITECTURES
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER, read_networks
from dsd_jax.priors import EMBEDDED
from dsd_jax.priors.stable_diffusion import Prior
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.recipe.state import init_state, make_scene
from dsd_jax.recipe.step import Recipe, _render, sample_viewpoints
from dsd_jax.schedule import NoiseSchedule

SETTINGS = dataclasses.replace(PRESETS["standard"], views=1)


@pytest.fixture(scope="module")
def quick_compilation():
    """Instead of the fixture of this name: XLA has to save the memory that it saves in a run."""


def abstract(networks, *parts) -> Prior:
    """A prior whose parameters of the given parts have shape and type, but no content."""
    dtype = networks.unet.dtype
    params = {
        name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)
        for name, tree in param_shapes(networks).items()
        if name in parts
    }
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
    return Prior(params, schedule, networks, EMBEDDED["toybox"])


@pytest.fixture(scope="module")
def toybox():
    return abstract(read_networks(EMBEDDED["toybox"]), "unet", "vae")


@pytest.fixture(scope="module")
def half_toybox():
    return abstract(read_networks(EMBEDDED["toybox"], jnp.bfloat16), "unet", "vae")


@pytest.fixture(scope="module")
def sd21():
    return abstract(build(*ARCHITECTURES["sd21-base"], jnp.bfloat16), "unet", "vae")


@pytest.fixture
def big(sd21, monkeypatch):
    """SD 2.1-base in bfloat16 as on a GPU, where a kernel of cuDNN computes small heads."""

    def implementation(dtype, head_features):
        return "cudnn" if head_features <= 128 else "xla"

    monkeypatch.setattr(attention, "implementation", implementation)
    monkeypatch.setattr(memory, "costs", lambda: memory.ON_ACCELERATOR)
    return Task(sd21, make_scene(SETTINGS), METHODS["dsd"], SETTINGS, None)


def temporary_bytes(function, *args) -> int:
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_encoder_is_near_what_xla_says(toybox):
    def gradient(params, image, grad):
        return jax.vjp(partial(toybox.encode, params), image)[1](grad)

    image = jnp.zeros((toybox.image_size, toybox.image_size, 3))
    used = temporary_bytes(gradient, toybox.params, image, jnp.zeros(toybox.latent_shape))
    needs = memory.needs(toybox, make_scene(SETTINGS), SETTINGS)
    assert needs.encoder == pytest.approx(used, rel=0.2)


def test_rendering_is_near_what_xla_says(toybox):
    settings = dataclasses.replace(SETTINGS, resolution=32, late_resolution=32, samples=32)
    scene = make_scene(settings)
    recipe = Recipe(scene, toybox, METHODS["dsd"], settings)
    _, camera = sample_viewpoints(jax.random.key(0), settings)

    def gradient(state, grad):
        def rgb(params):
            return _render(recipe, params, state, camera, None, jax.random.key(1)).rgb

        return jax.vjp(rgb, state.params)[1](grad)

    state = jax.eval_shape(lambda: init_state(0, toybox.latent_shape, scene, settings))
    side = settings.resolution
    used = temporary_bytes(gradient, state, jnp.zeros((1, side, side, 3)))
    assert memory.needs(toybox, scene, settings).rendering == pytest.approx(used, rel=0.3)


def test_weights_are_counted_as_they_are_stored(big, toybox):
    assert memory.needs(big.prior, big.scene, SETTINGS).prior == 2 * (865_910_724 + 83_653_863)
    full = sum(leaf.size for leaf in jax.tree.leaves(toybox.params))
    assert memory.needs(toybox, big.scene, SETTINGS).prior == 4 * full


def test_sixteen_seeds_of_sd21_fit_16_gb_in_chunks(big):
    plan = make_plan(big, list(range(16)), max_memory_gb=0.8 * 16)
    needs = plan.needs
    assert len(plan.chunks[0]) > 1 and len({s for chunk in plan.chunks for s in chunk}) == 16
    c = len(plan.chunks[0])
    assert plan.bytes_needed == needs.shared + c * needs.per_seed <= 0.8 * 16e9
    assert 0 < needs.in_turn < needs.network + needs.encoder
    assert needs.per_seed == sum(needs[2:-1]) - needs.in_turn
    assert f"16 seeds in {len(plan.chunks)} chunks of {c}; memory: prior 3.15 GB, " in str(plan)
    assert f", of which {memory.gb(needs.in_turn)} in turn), in all " in str(plan)
    assert plan.warning is None
    alone = make_plan(big, list(range(16)), max_memory_gb=1000)
    assert alone.chunks == [list(range(16))]


def test_plan_is_near_what_an_h200_held(big):
    """7.51 GB (`peak_bytes_in_use`): four seeds, one view of 96 pixels, 48 samples, 8 levels."""
    settings = dataclasses.replace(
        SETTINGS, resolution=96, late_resolution=96, samples=48, levels=8, log2_entries=17,
        base_resolution=16, growth=1.447,
    )  # fmt: skip
    needs = memory.needs(big.prior, make_scene(settings), settings)
    assert needs.shared + 4 * needs.per_seed == pytest.approx(7.51e9, rel=0.1)


@pytest.mark.parametrize("seeds, held", [(4, 7.78e9), (16, 21.59e9)])
def test_plan_is_near_what_an_h200_held_of_sd21(big, seeds, held):
    """`peak_bytes_in_use` of `--preset authors`, jax 0.11.2."""
    needs = memory.needs(big.prior, make_scene(PRESETS["authors"]), PRESETS["authors"])
    assert needs.shared + seeds * needs.per_seed == pytest.approx(held, rel=0.1)


@pytest.mark.parametrize("seeds, held", [(4, 0.88e9), (16, 3.46e9)])
def test_plan_is_near_what_an_h200_held_of_toybox(half_toybox, big, seeds, held):
    """The same of `--preset standard`."""
    needs = memory.needs(half_toybox, make_scene(PRESETS["standard"]), PRESETS["standard"])
    assert needs.shared + seeds * needs.per_seed == pytest.approx(held, rel=0.1)


def test_attention_is_counted_where_no_kernel_fuses_it(big, monkeypatch):
    fused = memory.needs(big.prior, big.scene, SETTINGS).network
    monkeypatch.setattr(attention, "implementation", lambda dtype, features: "xla")
    weights = 4 * 4 * 5 * 4096**2  # conditionings, bytes, heads, pairs of tokens
    assert memory.needs(big.prior, big.scene, SETTINGS).network == fused + 3 * weights


def test_perp_neg_and_views_cost(big):
    plain = dataclasses.replace(SETTINGS, view_prompts="words")
    two = dataclasses.replace(plain, views=2)
    needs = [memory.needs(big.prior, big.scene, s) for s in (SETTINGS, plain, two)]
    assert needs[0].network == 2 * needs[1].network == needs[2].network
    assert needs[2].rendering == 2 * needs[1].rendering and needs[2].field == needs[1].field


def test_what_is_kept_of_the_ode_is_counted(big):
    """Eight azimuths (left is told like right) at 10 nodes down to t = 0.15, in bfloat16."""
    points = dataclasses.replace(SETTINGS, t_min=0.15, ode_table_points=24)
    exact, nodes, table = (
        memory.needs(big.prior, big.scene, dataclasses.replace(points, ode=mode))
        for mode in ("exact", "nodes", "table")
    )
    assert (exact.cache, nodes.cache, table.cache) == (0, 8 * 10 * 2**15, 8 * 24 * 2**15)
    assert table.per_seed - exact.per_seed == table.cache
    assert "cache 0.0063 GB" in str(table) and "cache" not in str(exact)


def test_a_network_that_is_trained_is_counted(toybox):
    """XLA's figures for its backward pass: 38.7 MB of Toybox; 11.2 GB of SD 2.1 in float32."""
    scene = make_scene(SETTINGS)
    plain, vsd = (memory.needs(toybox, scene, SETTINGS, METHODS[m]) for m in ("dsd", "vsd"))
    assert plain.method == 0 and plain == vsd._replace(method=0)
    assert vsd.method == pytest.approx(38.7e6, rel=0.1)
    full = abstract(build(*ARCHITECTURES["sd21-base"]), "unet", "vae")
    asd = memory.needs(full, scene, SETTINGS, METHODS["asd"])
    assert asd.method == pytest.approx(11.2e9, rel=0.1)
    assert f"method {memory.gb(asd.method)}" in str(asd)


def test_its_training_costs_less_in_half_precision_and_more_with_every_view(big):
    two = dataclasses.replace(SETTINGS, views=2)
    one, more = (memory.needs(big.prior, big.scene, s, METHODS["vsd"]) for s in (SETTINGS, two))
    assert 1e9 < more.method - one.method < one.method < 4e9


def test_what_does_not_fit_is_said_in_one_line(big, monkeypatch):
    with pytest.raises(
        ValueError, match=r"one seed needs about .* but --max-memory-gb is 3; make "
    ):
        make_plan(big, [0, 1], max_memory_gb=3)
    for size in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"--max-memory-gb must be .* from 0 on, not {size}"):
            make_plan(big, [0, 1], max_memory_gb=size)
    monkeypatch.setattr(memory, "bytes_available", lambda: 10**9)
    plan = make_plan(big, [0, 1])
    assert plan.chunks == [[0], [1]]
    assert "but the device has 2.90 GB; make --resolution" in plan.warning
