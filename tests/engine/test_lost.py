"""Seeds that diverge, and objects of which nothing is left."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_colours import Machine

from dsd_jax.engine import generate, lost
from dsd_jax.engine.generate import Saving, Watch, load_states, optimise
from dsd_jax.engine.plan import make_plan
from dsd_jax.metrics.scores import Scores


@pytest.fixture(scope="module")
def machine(task):
    return Machine(task)


@pytest.fixture
def poisoned(monkeypatch):
    """Seed 5 begins with one parameter that is not finite."""
    initial = generate.initial_states

    def begun(task, chunk):
        states = initial(task, chunk)
        bad = jnp.asarray(chunk) == 5

        def poison(leaf):
            first = leaf.reshape(len(chunk), -1)[:, 0]
            flat = leaf.reshape(len(chunk), -1).at[:, 0].set(jnp.where(bad, jnp.nan, first))
            return flat.reshape(leaf.shape)

        return states.replace(params=jax.tree.map(poison, states.params))

    monkeypatch.setattr(generate, "initial_states", begun)


def run(machine, seeds, folder=None, stop=10**6):
    """The objects, and what was said of lost ones."""
    said, done = [], [0]
    saved = load_states(machine.task, folder, seeds) if folder else {}
    watch = Watch(
        on_block=lambda chunk, progress: done.append(progress.done),
        should_stop=lambda: int(done[-1] >= stop),
        on_lost=lambda seed, why: said.append((seed, why)),
    )
    plan = make_plan(machine.task, seeds, saved=saved)
    return optimise(machine.task, plan, watch, Saving(folder, 0, saved), machine.blocks), said


def test_a_seed_that_diverges_is_named_once_and_the_others_are_the_same_bit_for_bit(
    machine, poisoned, monkeypatch
):
    broken, said = run(machine, [3, 5, 8])
    assert said == [(5, lost.diverged(1))]
    assert broken.lost == dict(said) and broken.diverged == {5: 1}
    assert broken.steps == {3: 40, 5: 1, 8: 40}
    assert 5 not in broken.latest and np.isfinite(broken.latest[3]["loss"])
    monkeypatch.undo()
    whole, said = run(machine, [3, 5, 8])
    assert not said and not whole.lost
    for i in (0, 2):
        ours, theirs = (
            jax.tree.map(lambda leaf, i=i: leaf[i], made.chunks[0][1].params)
            for made in (broken, whole)
        )
        chex.assert_trees_all_equal(ours, theirs)


def test_a_seed_that_diverges_stays_as_it_was_before(machine, monkeypatch):
    """Its noise is not finite, and so neither is its gradient, from the first step on."""
    initial = generate.initial_states

    def begun(task, chunk):
        states = initial(task, chunk)
        bad = (jnp.asarray(chunk) == 5)[:, None, None, None]
        return states.replace(seed_noise=jnp.where(bad, jnp.inf, states.seed_noise))

    monkeypatch.setattr(generate, "initial_states", begun)
    broken, said = run(machine, [3, 5, 8])
    assert said == [(5, lost.diverged(1))]
    states, first = broken.chunks[0][1], initial(machine.task, [3, 5, 8])
    assert states.frozen.tolist() == [False, True, False] and states.step.tolist() == [40] * 3
    held = states.params, states.opt_state
    for i, same in enumerate(states.frozen):
        ours, theirs = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), (held, (
            first.params, first.opt_state)))  # fmt: skip
        equal = jax.tree.map(np.array_equal, ours, theirs)
        assert all(jax.tree.leaves(equal)) == bool(same)


def test_a_chunk_whose_seeds_all_diverged_ends_at_once(machine, poisoned):
    broken, said = run(machine, [5])
    assert len(said) == 1
    assert int(broken.chunks[0][1].step[0]) == 1


def test_a_resumed_run_knows_which_seeds_had_diverged(machine, poisoned, tmp_path):
    run(machine, [3, 5], tmp_path, stop=9)
    assert load_states(machine.task, tmp_path, [5])[5].diverged == 1
    resumed, said = run(machine, [3, 5], tmp_path)
    assert said == [(5, lost.diverged(1))]
    assert resumed.steps == {3: 40, 5: 1} and "diverged" not in resumed.latest[3]


def test_nothing_to_be_seen_is_told_from_little():
    views = np.full((3, 8, 64, 64, 3), 204, np.uint8)
    views[0, :, 20:30, 20:30] = 90  # small
    views[1, 2, 5, 5] = 90  # a speck in one view
    assert lost.gone(views).tolist() == [False, True, True]


def test_the_lost_have_no_part_in_scores():
    def score(rows):
        return Scores({"diversity": float(sum(rows))}, [{"diversity": float(i)} for i in rows])

    found = lost.scores_without([7, 8, 9], {8: "gone"}, score)
    assert found.run == {"diversity": 2.0}
    assert [own["diversity"] for own in found.seeds] == [0.0, None, 2.0]
    none = lost.scores_without([7], {7}, score)
    assert none.run["diversity"] is None and none.run["fidelity"]["reason"]
