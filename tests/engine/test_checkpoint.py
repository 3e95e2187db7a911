"""Checkpoints: written whole, the last two kept, read seed by seed."""

import shutil

import chex
import jax
import numpy as np
import pytest

from dsd_jax.engine import checkpoint
from dsd_jax.engine.generate import initial_states, load_states


def at_step(states, step: int):
    """The same states, counted as of another step."""
    return states.replace(step=states.step * 0 + step)


@pytest.fixture(scope="module")
def states(task):
    return initial_states(task, [1, 2])


def save(folder, states, *steps, chunk=(1, 2)):
    with checkpoint.writer(folder, list(chunk), devices=2) as write:
        for step in steps:
            write(at_step(states, step), {"loss": np.array([0.5, step], np.float32)})


def test_every_seed_comes_back_with_its_metrics(task, states, tmp_path):
    save(tmp_path, states, 7)
    found = load_states(task, tmp_path, [1, 2, 3])
    assert set(found) == {1, 2}
    for i, seed in enumerate((1, 2)):
        expected = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), at_step(states, 7))
        chex.assert_trees_all_equal(found[seed].state, expected)
        assert found[seed].metrics == {"loss": (0.5, 7.0)[i]}
        assert (found[seed].step, found[seed].length, found[seed].devices) == (7, 2, 2)
    assert set(load_states(task, tmp_path, [2])) == {2}
    assert load_states(task, tmp_path / "none", [1]) == {}


def test_the_last_two_are_kept_and_a_step_is_written_once(states, tmp_path):
    save(tmp_path, states, 1, 2, 3)
    save(tmp_path, states, 3)
    folder = checkpoint.folder_of(tmp_path, [1, 2])
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


def test_a_write_that_was_cut_off_is_passed_over(task, states, tmp_path):
    """What SIGKILL leaves: a folder that has not got its name yet."""
    save(tmp_path, states, 1)
    folder = checkpoint.folder_of(tmp_path, [1, 2])
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    assert load_states(task, tmp_path, [1])[1].step == 1
    save(tmp_path, states, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_of_several_chunks_the_furthest_counts_for_each_seed(task, states, tmp_path):
    """Chunks differ between a run on many devices and its continuation on few."""
    save(tmp_path, states, 5)
    one = jax.tree.map(lambda leaf: leaf[1:], states)
    with checkpoint.writer(tmp_path, [2]) as write:
        write(at_step(one, 8), {})
    found = load_states(task, tmp_path, [1, 2])
    assert {seed: saved.step for seed, saved in found.items()} == {1: 5, 2: 8}


def test_what_cannot_be_read_or_does_not_fit_is_named(task, states, tmp_path):
    other = states.replace(seed_noise=states.seed_noise[:, :2])
    save(tmp_path / "other", other, 1)
    with pytest.raises(ValueError, match=r"/1: 'seed_noise' is float32\[2, 2, .* not "):
        load_states(task, tmp_path / "other", [1])
    save(tmp_path / "damaged", states, 1)
    folder = checkpoint.folder_of(tmp_path / "damaged", [1, 2]) / "1"
    shutil.rmtree(next(folder.glob("*/d")))
    with pytest.raises(ValueError, match=r"cannot be read: .*; remove it to use the one before"):
        load_states(task, tmp_path / "damaged", [1])
