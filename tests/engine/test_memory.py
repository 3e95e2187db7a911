"""The estimate of memory against what XLA says, and against what a GPU held."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.engine import memory
from dsd_jax.models import attention
from dsd_jax.models.architectures import ARCHITECTURES
from dsd_jax.models.networks import build
from dsd_jax.models.weights import read_networks
from dsd_jax.priors import EMBEDDED, load_prior
from dsd_jax.recipe.presets import authors, of_picture
from dsd_jax.recipe.recipe import Recipe, changed, with_method
from dsd_jax.recipe.state import init_state
from dsd_jax.recipe.step import _render
from dsd_jax.recipe.viewpoints import sample_viewpoints

ONE_VIEW = changed(Recipe(), views=1)


@pytest.fixture(scope="module")
def quick_compilation():
    """Instead of the fixture of this name: XLA has to save the memory that it saves in a run."""


@pytest.fixture(scope="module")
def toybox(abstract):
    return abstract(read_networks(EMBEDDED["toybox"]))


@pytest.fixture(scope="module")
def half_toybox(abstract):
    return abstract(read_networks(EMBEDDED["toybox"], jnp.bfloat16))


def temporary_bytes(function, *args) -> int:
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_encoder_is_near_what_xla_says(toybox, told):
    def gradient(params, image, grad):
        return jax.vjp(partial(toybox.encode, params), image)[1](grad)

    image = jnp.zeros((toybox.image_size, toybox.image_size, 3 + toybox.sees_opacity))
    used = temporary_bytes(gradient, toybox.params, image, jnp.zeros(toybox.latent_shape))
    assert memory.needs(toybox, ONE_VIEW, told).encoder == pytest.approx(used, rel=0.2)


def test_rendering_is_near_what_xla_says(toybox, told):
    side = 32
    recipe = changed(ONE_VIEW, resolution=side, late_resolution=side, samples=32)
    _, camera = sample_viewpoints(jax.random.key(0), recipe.camera)

    def gradient(state, grad):
        def rgb(params):
            return _render(recipe, params, state, camera, None, jax.random.key(1)).rgb

        return jax.vjp(rgb, state.params)[1](grad)

    state = jax.eval_shape(lambda: init_state(0, toybox.latent_shape, recipe))
    used = temporary_bytes(gradient, state, jnp.zeros((1, side, side, 3)))
    assert memory.needs(toybox, recipe, told).rendering == pytest.approx(used, rel=0.3)


def test_weights_are_counted_as_they_are_stored(big, toybox):
    found = memory.needs(big.prior, big.recipe, big.condition).prior
    assert found == 2 * (865_910_724 + 83_653_863)
    full = sum(leaf.size for leaf in jax.tree.leaves(toybox.params))
    assert memory.needs(toybox, ONE_VIEW, big.condition).prior == 4 * full


def test_a_prior_that_does_not_say_what_its_networks_are_has_weights_and_renderings(task):
    needs = memory.needs(task.prior, task.recipe, task.condition)
    assert (needs.prior, needs.encoder, needs.network, needs.method) == (12, 0, 0, 0)
    assert needs.field > 0 and needs.rendering > 0


def test_plan_is_near_what_an_h200_held(big):
    """7.51 GB (`peak_bytes_in_use`): four seeds, one view of 96 pixels, 48 samples, 8 levels."""
    recipe = changed(
        ONE_VIEW, resolution=96, late_resolution=96, samples=48, levels=8, log2_entries=17,
        base_resolution=16, growth=1.447, rounds=0,
    )  # fmt: skip
    needs = memory.needs(big.prior, recipe, big.condition)
    assert needs.shared + 4 * needs.per_seed == pytest.approx(7.51e9, rel=0.1)


@pytest.mark.parametrize("seeds, held", [(4, 7.78e9), (16, 21.59e9)])
def test_plan_is_near_what_an_h200_held_of_sd21(big, seeds, held):
    """`peak_bytes_in_use` of `--preset authors`, jax 0.11.2."""
    needs = memory.needs(big.prior, changed(authors, rounds=0), big.condition)
    assert needs.shared + seeds * needs.per_seed == pytest.approx(held, rel=0.1)


@pytest.mark.parametrize("seeds, held", [(4, 0.88e9), (16, 3.46e9)])
def test_plan_is_near_what_an_h200_held_of_toybox(half_toybox, big, seeds, held):
    """The same of a step of `standard`, of which four views are denoised together."""
    needs = memory.needs(half_toybox, changed(Recipe(), rounds=0), big.condition)
    assert needs.shared + seeds * needs.per_seed == pytest.approx(held, rel=0.1)


def test_attention_is_counted_where_no_kernel_fuses_it(big, monkeypatch):
    fused = memory.needs(big.prior, big.recipe, big.condition).network
    monkeypatch.setattr(attention, "implementation", lambda dtype, features: "xla")
    weights = 4 * 4 * 5 * 4096**2  # conditionings, bytes, heads, pairs of tokens
    assert memory.needs(big.prior, big.recipe, big.condition).network == fused + 3 * weights


def test_perp_neg_and_views_cost(big):
    words = big.condition.replace(view_prompts="words")
    blended, plain, two = (
        memory.needs(big.prior, recipe, told)
        for recipe, told in (
            (big.recipe, big.condition), (big.recipe, words), (changed(big.recipe, views=2), words)
        )
    )  # fmt: skip
    assert blended.network == 2 * plain.network == two.network
    assert two.rendering == 2 * plain.rendering and two.field == plain.field


def test_what_is_kept_of_the_ode_is_counted(big):
    """Eight azimuths (left is told like right) at 10 nodes down to t = 0.15, in bfloat16."""
    points = changed(big.recipe, t_min=0.15, table_points=24)
    exact, nodes, table = (
        memory.needs(big.prior, changed(points, kind=kind), big.condition)
        for kind in ("exact", "nodes", "table")
    )
    assert (exact.cache, nodes.cache, table.cache) == (0, 8 * 10 * 2**15, 8 * 24 * 2**15)
    assert table.per_seed - exact.per_seed == table.cache
    assert "cache 0.0063 GB" in str(table) and "cache" not in str(exact)


def test_a_network_that_is_trained_is_counted(toybox, abstract, told):
    """XLA's figures for its backward pass: 38.7 MB of Toybox; 11.2 GB of SD 2.1 in float32."""
    exact = changed(ONE_VIEW, kind="exact")
    plain, vsd = (memory.needs(toybox, with_method(exact, m), told) for m in ("dsd", "vsd"))
    assert plain.method == 0 and plain == vsd._replace(method=0)
    assert vsd.method == pytest.approx(38.7e6, rel=0.1)
    full = abstract(build(*ARCHITECTURES["sd21-base"]))
    asd = memory.needs(full, with_method(ONE_VIEW, "asd"), told)
    assert asd.method == pytest.approx(11.2e9, rel=0.1)
    assert f"method {memory.gb(asd.method)}" in str(asd)


def test_its_training_costs_less_in_half_precision_and_more_with_every_view(big):
    recipe = with_method(big.recipe, "vsd")
    one, two = (
        memory.needs(big.prior, changed(recipe, views=views), big.condition) for views in (1, 2)
    )
    assert 1e9 < two.method - one.method < one.method < 4e9


def test_the_view_of_a_picture_counts_in_a_step(zero123_file):
    """One view more than the random ones: three and it are twice one and it."""
    prior = load_prior(zero123_file)
    recipe = changed(of_picture(Recipe()), resolution=8, late_resolution=8)
    one, three = (memory.needs(prior, changed(recipe, views=views), None, True) for views in (1, 3))
    assert three.rendering == 2 * one.rendering and three.network == 3 * one.network
