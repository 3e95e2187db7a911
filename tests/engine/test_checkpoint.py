"""Checkpoints: written whole, the last two kept, read seed by seed."""

import random
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_colours import Machine

from dsd_jax.engine import checkpoint, checksum
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


def test_what_earlier_phases_measured_is_known_however_often_a_run_is_stopped(task, tmp_path):
    states = initial_states(task, [4])
    with checkpoint.writer(tmp_path, [4]) as write:
        write(at_step(states, 3), {"early": np.array([2.0], np.float32), "loss": np.array([9.0])})
    Machine(task).run([4], tmp_path, stop=4)
    found = load_states(task, tmp_path, [4])[4]
    assert found.step == 4 and found.metrics["early"] == 2 and found.metrics["loss"] < 9


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
    with pytest.raises(ValueError, match=r"cannot be read: .*; --no-resume starts afresh"):
        load_states(task, tmp_path / "damaged", [1])


def flipped(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def test_a_flipped_byte_is_never_taken_for_a_number(task, states, tmp_path):
    """Wherever it lies in a file of the arrays: refused, or without effect."""
    save(tmp_path / "whole", states, 4)
    whole = load_states(task, tmp_path / "whole", [1, 2])
    files = [path for path in (tmp_path / "whole").rglob("d/*") if path.is_file()]
    rng, refused = random.Random(3), 0
    for i in range(12):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / max(files, key=lambda p: p.stat().st_size).relative_to(tmp_path / "whole")
        flipped(path, rng.randrange(path.stat().st_size))
        try:
            found = load_states(task, folder, [1, 2])
        except ValueError as error:
            refused += 1
            assert "cannot be read" in str(error)
            continue
        for seed in (1, 2):
            chex.assert_trees_all_equal(found[seed], whole[seed])
    assert refused > 3


def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_it_is_written_anew(
    task, states, tmp_path, capsys
):
    save(tmp_path, states, 2, 5)
    folder = checkpoint.folder_of(tmp_path, [1, 2])
    for path in (folder / "5").rglob("d/*"):
        path.write_bytes(b"")
    assert load_states(task, tmp_path, [1])[1].step == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {folder / '5'} cannot be read: ")
    assert line.endswith("; the one before it is taken")
    with checkpoint.writer(tmp_path, [1, 2], 2, reached=2) as write:
        write(at_step(states, 4), {})
    assert load_states(task, tmp_path, [1])[1].step == 4


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32, np.bool_, jnp.bfloat16])
def test_a_checksum_sees_every_number_of_its_row_alone(dtype):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5)) > 0).astype(dtype)
    before = np.asarray(checksum.of_rows({"a": rows, "b": rows}))
    for i in range(10):
        flat = rows.reshape(3, 10)
        changed = flat.at[1, i].set((1 - flat[1, i].astype(jnp.int32)).astype(dtype))
        after = np.asarray(checksum.of_rows({"a": rows, "b": changed.reshape(rows.shape)}))
        assert (before != after).tolist() == [False, True, False]


def test_a_checksum_of_a_few_numbers():
    arrays = {"a": np.arange(3.0), "b": np.ones(2)}
    known = checksum.of_numbers(arrays)
    assert known == checksum.of_numbers(dict(reversed(arrays.items())))
    assert known != checksum.of_numbers(arrays | {"b": np.array([1.0, 1.5])})
