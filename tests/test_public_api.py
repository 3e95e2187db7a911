"""`import dsd_jax as dsd`: what a user types, and what a user brings along."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import own_field, own_method, own_prior

import dsd_jax as dsd

EXAMPLES = Path(__file__).parent / "examples"
SMALL = dict(
    steps=24, views=1, resolution=8, late_resolution=8, samples=8, levels=2, start_levels=2,
    log2_entries=8, width=8, occupancy_resolution=8, occupancy_every=4, turntable_frames=2,
    turntable_resolution=16, final_samples=8, guidance_scale=1.0, colour_std=0.0, rounds=0,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(quick_compilation):
    """All tests of this module."""


@pytest.fixture(scope="module")
def recipe() -> dsd.Recipe:
    return dsd.changed(dsd.recipes.quick, **SMALL)


@pytest.fixture(scope="module")
def objects(recipe) -> dsd.Objects:
    """Two red things."""
    return dsd.generate(own_prior.Flat(), "a red thing", seeds=[3, 5], recipe=recipe)


def ignore(chunk, progress):
    """In the place of a bar."""


def test_every_public_name_is_there():
    assert set(dsd.__all__) <= set(dir(dsd))
    for name in dsd.__all__:
        assert getattr(dsd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dsd.nothing  # noqa: B018


def test_importing_it_imports_nothing_else():
    code = "import sys, dsd_jax; print({'jax', 'numpy', 'torch', 'flax'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("own_*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 40


def test_objects_are_a_sequence_of_seeds(objects):
    assert len(objects) == 2 and objects.seeds == [3, 5]
    assert [one.seed for one in objects] == [3, 5] and objects[-1].seed == 5
    assert objects.steps == {3: 24, 5: 24} and not objects.interrupted
    with pytest.raises(IndexError):
        objects[2]


def test_a_prior_of_ones_own_makes_red_things(objects):
    views = objects.views()
    assert views.shape == (2, 8, 256, 256, 3) and views.dtype == np.uint8
    assert objects.turntable().shape == (2, 2, 16, 16, 3)
    centre = views[:, :, 96:160, 96:160].astype(float).mean((0, 1, 2, 3))
    grey = 204.0
    assert centre[0] - centre[2] > 5 and centre[2] < grey


def test_a_seed_is_the_same_alone(objects, recipe):
    alone = dsd.generate(own_prior.Flat(), "a red thing", [5], recipe, on_progress=ignore)
    for ours, theirs in zip(
        jax.tree.leaves(alone[0].scene.params), jax.tree.leaves(objects[1].scene.params),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_saved_folder_is_read_again(objects, tmp_path):
    folder = objects.save(tmp_path / "red", meshes=False)
    names = {"index.html", "config.json", "metrics.json", "seeds.png", "seed_0003", "seed_0005"}
    assert names <= {path.name for path in folder.iterdir()}
    again = dsd.load_objects_of(folder)
    assert again.seeds == objects.seeds and again.recipe == objects.recipe
    assert again.prompt == "a red thing" and again.steps == objects.steps
    ours, theirs = (one[0].scene.params["field"]["Dense_0"]["kernel"] for one in (objects, again))
    np.testing.assert_array_equal(ours, theirs)
    assert again.scores().run["diversity"] == pytest.approx(objects.scores().run["diversity"])


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a finished run"):
        dsd.load_objects_of(tmp_path)


def test_a_method_of_ones_own(recipe):
    own = own_method.recipe(recipe)
    objects = dsd.generate(own_prior.Flat(), "a blue thing", [0], own, on_progress=ignore)
    assert objects.config()["method"] == "Classifier"
    assert objects.config()["recipe"]["method"]["strength"] == 0.5
    before, after = (jax.tree.leaves(p) for p in (_start(own), objects[0].scene.params))
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, after, strict=True))


def test_a_field_of_ones_own(recipe, tmp_path):
    voxels = own_field.Voxels()
    own = dataclasses.replace(recipe, field=voxels)
    objects = dsd.generate(own_prior.Flat(), "a red thing", [0], own, on_progress=ignore)
    grid = objects[0].scene.params["field"]
    assert grid.shape == (8, 8, 8, 4) and np.abs(grid - voxels.init(jax.random.key(0))).max() > 0.01
    mesh = objects[0].mesh(dsd.MeshSettings(faces=100, vertex_colours=True))
    mesh.save(tmp_path / "thing.glb")
    assert (tmp_path / "thing.glb").stat().st_size > 500
    with pytest.raises(ValueError, match=r"must end in .glb"):
        mesh.save(tmp_path / "thing.fbx")
    few = dsd.SplatSettings(count=200, steps=1, views=2, size=16, samples=8, tiles=4)
    objects[0].splats(few).save(tmp_path / "thing.ply")
    assert 200 * 68 < (tmp_path / "thing.ply").stat().st_size < 200 * 68 + 500
    folder = objects.save(tmp_path / "run", meshes=False)
    with pytest.raises(ValueError, match="give the recipe"):
        dsd.load_objects_of(folder)
    again = dsd.load_objects_of(folder, own)
    np.testing.assert_array_equal(again[0].scene.params["field"], grid)


def test_several_prompts_share_what_is_compiled(recipe, compilations):
    prompts = ["a red thing", "a blue thing"]
    options = {"seeds": [0], "recipe": recipe, "on_progress": ignore}
    red, blue = dsd.generate_each(own_prior.Flat(), prompts, **options)
    assert sum("_step" in name for name in compilations) == 1
    assert [red.prompt, blue.prompt] == prompts
    kernels = (one[0].scene.params["field"]["Dense_1"]["kernel"] for one in (red, blue))
    assert np.abs(np.subtract(*kernels)).max() > 0


def test_a_gradient_on_ones_own_rendering():
    key, schedule = jax.random.key(0), dsd.NoiseSchedule.from_config({})
    text, uncond, noise = jnp.ones(()), jnp.zeros(()), jax.random.normal(key, (4, 4, 3))

    def network(x, t, told):
        return 0.1 * x + told[:, None, None, None]

    def rendered(params):
        return 2 * params - 1

    denoiser_at = dsd.classifier_free(network, text, uncond)
    x, pull = jax.vjp(rendered, jnp.ones((4, 4, 3)))
    method = dsd.methods.DSD(guidance_scale=7.5)
    gradient, logs = method.gradient(key, denoiser_at, schedule, x, noise, 500)
    (grads,) = pull(gradient)
    np.testing.assert_allclose(grads, 2 * gradient)
    assert float(logs["gradient_norm"]) > 0


@pytest.mark.parametrize(
    ("seeds", "said"),
    [([], "names no seed"), ([1, 1], "twice"), ([-1], "seeds are from 0")],
)
def test_seeds_that_cannot_be_are_refused(recipe, seeds, said):
    with pytest.raises(ValueError, match=said):
        dsd.generate(own_prior.Flat(), "a red thing", seeds, recipe)


def test_an_empty_prompt_is_refused(recipe):
    with pytest.raises(ValueError, match="prompt is empty"):
        dsd.generate(own_prior.Flat(), " ", [0], recipe)


def test_what_is_no_prior_is_refused_with_what_it_lacks(recipe):
    with pytest.raises(TypeError, match="no latent_shape"):
        dsd.generate(object(), "a red thing", [0], recipe)


def _start(recipe: dsd.Recipe):
    """The params of seed 0 before the first step."""
    from dsd_jax.recipe.state import init_state

    return init_state(0, (4, 4, 3), recipe).params
