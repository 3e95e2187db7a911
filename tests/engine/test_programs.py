"""Compiled programs that are kept from run to run."""

import shutil
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dsd_jax.engine import programs
from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.generate import initial_states, make_blocks
from dsd_jax.engine.task import make_task
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.priors import load_prior
from dsd_jax.recipe.recipe import changed
from dsd_jax.rendering import occupancy
from dsd_jax.rendering.volume import absorption

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def folder(tmp_path):
    programs.keep_in(tmp_path / "programs")
    yield tmp_path / "programs"
    programs.keep_in(None)


@pytest.fixture(scope="module")
def task(tiny_prior_folder, recipe):
    """Of a prior of the package: what a test's own class does, a hash of it cannot tell."""
    return make_task(load_prior(str(tiny_prior_folder)), "red", changed(recipe, samples=5))


def run(task):
    """The states of a seed after three steps, and what was compiled."""
    mesh = seed_mesh(1)
    ((_, block),) = make_blocks(task, mesh)
    states, shared = place(mesh, initial_states(task, [3]), task.shared)
    block.compile(states, shared, lambda: None)
    states, metrics = block(states, 0, 3, shared)
    return jax.device_get((states.params, metrics))


@pytest.fixture
def nothing_cached(tmp_path):
    """JAX's own cache is empty, and is used."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("nothing_cached")
def test_the_next_run_loads_them_and_ends_with_the_same_bits(folder, task, compilations):
    first = run(task)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(files) == 3 and all(name.endswith(".program") for name in files)  # fill too
    compilations.clear()
    jax.tree.map(np.testing.assert_array_equal, run(task), first)
    steps = ("jit(_step", "jit(fill", "jit(refresh")
    assert not [name for name in compilations if name.startswith(steps)]
    for path in folder.iterdir():
        path.write_bytes(files[path.name][:-99])
    jax.tree.map(np.testing.assert_array_equal, run(task), first)
    assert [name for name in compilations if name.startswith(steps)]


@pytest.mark.usefixtures("nothing_cached")
def test_what_jax_had_kept_is_not_kept_again(folder, task):
    """On a CPU it would lack its code."""
    first = run(task)
    shutil.rmtree(folder)
    jax.clear_caches()
    jax.tree.map(np.testing.assert_array_equal, run(task), first)
    assert not list(folder.glob("*"))


@pytest.mark.usefixtures("nothing_cached")
def test_another_recipe_is_another_program(folder, task):
    run(task)
    before = {path.name for path in folder.iterdir()}
    run(task._replace(recipe=changed(task.recipe, guidance_scale=3.0)))
    assert before < {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("nothing_cached")
def test_only_so_many_are_kept(folder, task, monkeypatch):
    monkeypatch.setattr(programs, "_MOST_FILES", 2)
    run(task)
    assert len(list(folder.iterdir())) == 2


def test_without_a_folder_nothing_is_written(tmp_path, task, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(task)
    assert not list(tmp_path.iterdir())


FIELD = HashGridField(levels=2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (partial(absorption, 1), partial(absorption, 1.0)),
        (partial(absorption, np.zeros(2)), partial(absorption, np.array([0.0, -1.0]))),
        (jnp.zeros(2), np.zeros(2, np.float32).reshape(1, 2)),
        (FIELD.apply, HashGridField(levels=3).apply),
        (FIELD.apply, FIELD.init),
        ({"a": (1, 2)}, {"a": (1, (2,))}),
        (occupancy.init, occupancy.update),
    ],
)
def test_what_differs_has_another_fingerprint(one, other):
    assert programs.fingerprint(one) == programs.fingerprint(one) != programs.fingerprint(other)


def test_equal_things_have_one_fingerprint():
    """Whatever object they are."""
    again = HashGridField(levels=2)
    assert programs.fingerprint(FIELD.apply) == programs.fingerprint(again.apply)
    assert programs.fingerprint(jnp.arange(3)) == programs.fingerprint(jnp.arange(3))
    itself: list = [1]
    itself.append(itself)
    assert programs.fingerprint(itself)


@dataclass
class Own:
    """Of a module that may read otherwise tomorrow."""

    number: int = 1


@pytest.mark.parametrize(
    "value", [lambda: 1, Own(), Own, iter([]), object(), jax.random.key(0), np.array([object()])]
)
def test_what_cannot_be_told_is_refused(value):
    with pytest.raises(programs.Unknown):
        programs.fingerprint((value,))
