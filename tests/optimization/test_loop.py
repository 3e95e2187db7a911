"""Blocks of steps, companions, checkpoints and Ctrl-C."""

import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.optimization import checkpoint, loop
from dsd_jax.optimization.preview import make_camerawork, shoot
from dsd_jax.optimization.text_to_3d import initial_states, make_blocks, optimise_chunk

# Companions change the shapes that XLA compiles for, hence the order of some sums, and Adam passes
# the sign of the smallest gradients on. Measured 2e-6 after 20 steps.
TOLERANCE = 1e-4


class Machine:
    """Runs chunks of the test's task with one compiled step for each size of chunk."""

    def __init__(self, task):
        self.task = task
        self.mesh = loop.seed_mesh(1)
        self.blocks = make_blocks(task, self.mesh)

    def run(self, chunk, folder, stop=None, on_block=lambda p: None, resume=False):
        """Up to step `stop`, if given, in blocks of growing length."""
        last = {"done": 0}

        def watch(progress):
            last["done"] = progress.done
            on_block(progress)

        def enough():
            return stop is not None and last["done"] >= stop

        return optimise_chunk(
            self.task, chunk, self.blocks, self.mesh, folder, watch, enough, resume=resume
        )


@pytest.fixture(scope="module")
def machine(task):
    return Machine(task)


@pytest.fixture(scope="module")
def unbroken(machine, tmp_path_factory):
    """Seed 3 alone, all steps."""
    return machine.run([3], tmp_path_factory.mktemp("unbroken"))


def test_objects_become_what_the_prior_says(task, machine, unbroken):
    """The prior knows flat red pictures only; the object must turn red, from every side."""
    camerawork = make_camerawork(task.scene, 8, 8, machine.mesh)
    before = shoot(camerawork, initial_states(task, [3]), [0, 120], 20, task.settings)
    after = shoot(camerawork, unbroken, [0, 120], 20, task.settings)
    assert after.shape == (1, 2, 8, 8, 3)
    centre = np.s_[:, :, 3:5, 3:5]
    red_before, red_after = (
        picture[centre].astype(float).mean((2, 3)) @ [1, -0.5, -0.5] for picture in (before, after)
    )
    assert (np.abs(red_before) < 60).all()
    assert (red_after > 100).all()


def test_resumed_run_is_the_unbroken_one_bit_for_bit(machine, unbroken, tmp_path):
    stopped = machine.run([3], tmp_path, stop=9)
    assert 9 <= int(stopped.step[0]) < machine.task.settings.steps
    resumed = machine.run([3], tmp_path, resume=True)
    assert int(resumed.step[0]) == machine.task.settings.steps
    chex.assert_trees_all_equal(jax.device_get(resumed), jax.device_get(unbroken))
    again = machine.run([3], tmp_path, resume=True)
    chex.assert_trees_all_equal(jax.device_get(again), jax.device_get(unbroken))


def test_seed_alone_is_the_seed_among_others(machine, unbroken, tmp_path):
    among = machine.run([8, 3, 5], tmp_path)
    middle = jax.tree.map(lambda leaf: leaf[1:2], among)
    chex.assert_trees_all_close(middle.params, unbroken.params, atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_array_equal(middle.seed_noise, unbroken.seed_noise)
    first = jax.tree.leaves(among.params["field"])[0]
    assert not np.allclose(first[0], first[1], atol=1e-3)


def test_metrics_of_a_block_are_means_over_its_steps(machine, task):
    states, shared = loop.place(machine.mesh, initial_states(task, [3]), _shared(task))
    block = machine.blocks[0][1]
    states, first = block(states, 0, 1, shared)
    states, second = block(states, 1, 2, shared)
    again, _ = loop.place(machine.mesh, initial_states(task, [3]), _shared(task))
    _, both = block(again, 0, 2, shared)
    assert both["loss"].shape == (1,)
    for name, value in both.items():
        np.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-5)


def test_checkpoint_of_other_seeds_is_refused(task, tmp_path):
    states = initial_states(task, [1, 2])
    checkpoint.save(tmp_path, [1, 2], states)
    os.rename(checkpoint.path_of(tmp_path, [1, 2]), checkpoint.path_of(tmp_path, [1, 7]).parent
              / checkpoint.path_of(tmp_path, [1, 7]).name)  # fmt: skip
    with pytest.raises(ValueError, match="other seeds"):
        checkpoint.load(tmp_path, [1, 7], states)
    assert checkpoint.load(tmp_path, [4], states) is None


def test_ctrl_c_stops_between_blocks_with_the_state_of_the_steps_done():
    """One Ctrl-C while a block runs: that block is finished, none is begun after it."""
    seen = []

    def block(states, start, stop, shared):
        if start == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {"step": states["step"] + stop - start}, {"loss": jnp.zeros(1)}

    class States(dict):
        step = np.zeros(1)

    handler = signal.getsignal(signal.SIGINT)
    with loop.interruptible() as pressed:
        assert not pressed()
        states = loop.run(
            [(1000, block)], States(step=0), None, lambda p: seen.append(p.done), pressed
        )
        assert pressed()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is handler
    assert states["step"] == seen[-1] == 9
    assert seen == [1, 9]


def test_phases_follow_one_another():
    calls = []

    def phase(name):
        def block(states, start, stop, shared):
            calls.append((name, start, stop))
            return states, {}

        return block

    class States:
        step = np.array([2])

    loop.run([(5, phase("early")), (7, phase("late"))], States(), None, lambda p: None)
    assert calls[0] == ("early", 2, 3)
    assert [c[1] for c in calls[1:]] == [c[2] for c in calls[:-1]]
    assert ("late", 5, 6) in calls
    assert calls[-1][2] == 7


def _shared(task):
    from dsd_jax.optimization.step import Shared

    return Shared(task.prior.params, task.text)
