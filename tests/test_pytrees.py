"""Pytrees in safetensors files."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.pytrees import load_metadata, load_tree, save_tree


class Pair(NamedTuple):
    left: object
    right: object


def tree():
    return {
        "a": Pair(jnp.arange(6.0).reshape(2, 3).T, jnp.uint32(7)),
        "b": [np.array([True, False]), np.zeros((0, 2), np.int32)],
    }


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree(), {"made": "by a test"})
    found = load_tree(path, jax.eval_shape(tree))
    chex.assert_trees_all_equal(found, jax.device_get(tree()))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, tree())
    assert isinstance(found["a"], Pair)
    assert load_metadata(path) == {"made": "by a test"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["a"]._replace(left=jnp.zeros(2)), "'a/left' is float32"),
        (lambda t: t["a"]._replace(right=jnp.int32(7)), r"'a/right' is uint32\[\], not int32\[\]"),
        (lambda t: {"more": jnp.zeros(1)}, "lacks the tensor 'a/more'"),
        (lambda t: {"left": t["a"].left}, "holds the tensor 'a/right'"),
    ],
)
def test_first_leaf_that_does_not_fit_is_named(tmp_path, change, said):
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree())
    with pytest.raises(ValueError, match=said):
        load_tree(path, tree() | {"a": change(tree())})


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_tree(tmp_path / "none", tree())
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree())
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_tree(path, tree())


def test_interrupted_writer_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "tree.safetensors"
    save_tree(path, {"x": np.ones(3)})

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_tree(path, {"x": np.zeros(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["tree.safetensors"]
    np.testing.assert_array_equal(load_tree(path, {"x": np.ones(3)})["x"], np.ones(3))
