"""Objects of studies of which nothing comes."""

import jax
import jax.numpy as jnp
import numpy as np
from flat_colours import prior, recipe, task  # noqa: F401

from dsd_jax.studies import batch


def test_what_comes_to_nothing_is_named_and_marked(task, monkeypatch, capsys):  # noqa: F811
    """Seed 5 diverges from its first step on; of seed 8 nothing is to be seen."""

    def begun(task, seeds, real=batch.initial_states):
        states = real(task, seeds)
        grey = jnp.where(jnp.asarray(seeds) == 5, jnp.nan, 0.0)
        poison = lambda leaf: leaf + grey.reshape(-1, *[1] * (leaf.ndim - 1))  # noqa: E731
        return states.replace(params=jax.tree.map(poison, states.params))

    def shoot(*given, real=batch.shoot):
        pictures = real(*given)
        pictures[2] = 204
        return pictures

    monkeypatch.setattr(batch, "initial_states", begun)
    monkeypatch.setattr(batch, "shoot", shoot)
    (made,) = batch.make_all([task], [3, 5, 8])
    assert made.lost.tolist() == [False, True, True]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "a red thing: seed 5: diverged: its numbers are no longer finite after step 1; "
        "no score counts it",
        "a red thing: seed 8: nothing of it is left to be seen; no score counts it",
    ]
    assert batch.lost_of(made._asdict()).tolist() == [False, True, True]
    assert batch.lost_of({"views": made.views}).tolist() == [False] * 3


def test_a_result_that_is_damaged_is_none(tmp_path, capsys):
    path = tmp_path / "a.npz"
    assert not batch.is_kept(path) and not capsys.readouterr().err
    np.savez_compressed(path, views=np.arange(1000))
    assert batch.is_kept(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-30], whole[:200] + b"x" + whole[201:]):
        path.write_bytes(damaged)
        assert not batch.is_kept(path)
        assert capsys.readouterr().err == f"{path} is damaged; it is made again\n"
