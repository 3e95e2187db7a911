"""Blocks of steps, companions, checkpoints and Ctrl-C."""

import dataclasses
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine import loop, seed_views
from dsd_jax.engine.plan import initial_states, load_states, make_blocks, optimise_chunk
from dsd_jax.engine.precompile import compiling_ahead
from dsd_jax.engine.seed_views import make_camerawork, shoot
from dsd_jax.export.pictures import to_uint8
from dsd_jax.recipe.state import make_scene

# Companions change the shapes that XLA compiles for, hence the order of some sums, and Adam passes
# the sign of the smallest gradients on. Measured 2e-6 after 20 steps.
TOLERANCE = 1e-4


class Machine:
    """Runs chunks of the test's task with one compiled step for each size of chunk."""

    def __init__(self, task):
        self.task = task
        self.mesh = loop.seed_mesh(1)
        self.blocks = make_blocks(task, self.mesh)

    def run(self, chunk, folder, stop=None, on_block=lambda p: None, **options):
        """Up to step `stop`, if given, from the folder's last checkpoint."""
        last = {"done": 0}

        def watch(progress):
            last["done"] = progress.done
            on_block(progress)

        def enough():
            return stop is not None and last["done"] >= stop

        saved = load_states(self.task, folder, chunk)
        return optimise_chunk(
            self.task, chunk, self.blocks, self.mesh, folder, watch, enough, saved=saved, **options
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


def test_opacity_is_a_fourth_channel_of_the_same_pictures(task, machine, unbroken):
    """Where it is nothing there is the grey, and the object is solid."""
    plain, both = (make_camerawork(task.scene, 8, 8, machine.mesh, it) for it in (False, True))
    rgb, rgba = (shoot(kind, unbroken, [0, 120], 20, task.settings) for kind in (plain, both))
    np.testing.assert_array_equal(rgba[..., :3], rgb)
    np.testing.assert_array_equal(rgb[rgba[..., 3] == 0], 204)
    assert rgba[..., 0, 0, 3].max() == 0 and rgba[..., 4, 4, 3].min() > 127


def test_resumed_run_is_the_unbroken_one_bit_for_bit(machine, unbroken, tmp_path):
    stopped = machine.run([3], tmp_path, stop=9)
    assert 9 <= int(stopped.step[0]) < machine.task.settings.steps
    resumed = machine.run([3], tmp_path)
    assert int(resumed.step[0]) == machine.task.settings.steps
    chex.assert_trees_all_equal(jax.device_get(resumed), jax.device_get(unbroken))
    again = machine.run([3], tmp_path)
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


def test_ctrl_c_stops_between_blocks_with_the_state_of_the_steps_done():
    """One Ctrl-C while a block runs: that block is finished, none is begun after it."""
    seen = []

    class Block:
        def compile(self, states, shared, meanwhile):
            pass

        def __call__(self, states, start, stop, shared):
            if start == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return {"step": states["step"] + stop - start}, {"loss": jnp.zeros(1)}

    class States(dict):
        step = np.zeros(1)

    handler = signal.getsignal(signal.SIGINT)
    with loop.interruptible() as pressed:
        assert pressed() == 0
        states = loop.run(
            [(1000, Block())], States(step=0), None, lambda p: seen.append(p.done), pressed
        )
        assert pressed() == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is handler
    assert states["step"] == seen[-1] == 9
    assert seen == [1, 9]


def test_sigterm_is_noticed_and_outranks_ctrl_c():
    with loop.interruptible() as which:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert which() == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        assert which() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_trace_of_compiled_steps_is_written(machine, tmp_path):
    """The second block, of a few steps: what perfetto and what TensorBoard reads."""
    seen = []
    machine.run([3], tmp_path / "run", 9, lambda p: seen.append(p.done), profile=tmp_path / "trace")
    assert seen[:2] == [1, 1 + loop.PROFILED_STEPS]
    (folder,) = (tmp_path / "trace" / "plugins" / "profile").iterdir()
    names = [path.name for path in folder.iterdir()]
    assert "perfetto_trace.json.gz" in names
    assert any(name.endswith(".xplane.pb") for name in names)


def test_a_block_reads_nothing_back_and_its_states_are_given_away(machine, task):
    """Between the steps the host only dispatches; the next states take the place of the last."""
    states, shared = loop.place(machine.mesh, initial_states(task, [3]), _shared(task))
    states, _ = machine.blocks[0][1](states, 0, 1, shared)
    with jax.transfer_guard_device_to_host("disallow"):
        after, metrics = machine.blocks[0][1](states, 1, 4, shared)
    assert isinstance(metrics["loss"], jax.Array)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states.params))
    assert int(after.step[0]) == 4


def test_pictures_become_bytes_on_the_device_as_on_the_host():
    image = np.array([-1.0, 0.0, 0.001, 0.0019, 0.5, 0.9999, 1.0, 7.0, np.nan, np.inf, -np.inf])
    image = np.concatenate([image, np.arange(512) / 510]).astype(np.float32)
    np.testing.assert_array_equal(seed_views._to_uint8(jnp.asarray(image)), to_uint8(image))


def test_what_is_compiled_beforehand_is_not_compiled_again(task, compilations):
    """The steps' programs and the renderer, from states that have no cache yet."""
    settings = dataclasses.replace(task.settings, ode="table", samples=6, width=4)
    task = task._replace(settings=settings, scene=make_scene(settings))
    machine = Machine(task)
    ((_, block),) = machine.blocks
    camerawork = make_camerawork(task.scene, 8, 6, machine.mesh)
    states, shared = loop.place(machine.mesh, initial_states(task, [3]), _shared(task))
    with compiling_ahead(task.scene, settings, [camerawork], meshes=False) as ahead:
        block.compile(states, shared, partial(ahead, states))
        ahead(states)  # its first call counts
        began = time.monotonic()
        while "jit(all_seeds)" not in compilations and time.monotonic() - began < 60:
            time.sleep(0.01)  # what is not begun at the end is given up
    names = ["jit(_step)", "jit(all_seeds)", "jit(fill)", "jit(refresh)"]
    assert [name for name in sorted(compilations) if name in names] == names
    states, _ = block(states, 0, 1, shared)
    shoot(camerawork, states, [0, 120], 20, settings)
    assert [name for name in sorted(compilations) if name in names] == names


def test_the_first_run_of_a_program_is_undisturbed():
    """It waits for the threads beside it; those that come later wait for its end."""
    events, first, run = [], threading.Event(), threading.Event()

    def thread(name, begun, until):
        with loop.beside_a_run():
            begun.set()
            until.wait(60)
            events.append(name)

    def quiet():
        with loop.undisturbed():
            run.set()
            events.append("run")

    late = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        done = threading.Event()
        pool.submit(thread, "early", first, done)
        assert first.wait(60)
        pool.submit(quiet)
        while not loop._DOOR.locked():
            time.sleep(0.001)
        pool.submit(thread, "late", late, done)
        assert not run.is_set() and not late.wait(0.05)
        done.set()
    assert events == ["early", "run", "late"]


def test_phases_follow_one_another():
    calls = []

    def phase(name):
        class Block:
            def compile(self, states, shared, meanwhile):
                meanwhile()

            def __call__(self, states, start, stop, shared):
                calls.append((name, start, stop))
                return states, {}

        return Block()

    class States:
        step = np.array([2])

    loop.run([(5, phase("early")), (7, phase("late"))], States(), None, lambda p: None)
    assert calls[0] == ("early", 2, 3)
    assert [c[1] for c in calls[1:]] == [c[2] for c in calls[:-1]]
    assert ("late", 5, 6) in calls
    assert calls[-1][2] == 7


def _shared(task):
    from dsd_jax.recipe.step import Shared

    return Shared(task.prior.params, task.text)
