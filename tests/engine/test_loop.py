"""Blocks of steps, what is called between them, and Ctrl-C."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine import loop, turns
from dsd_jax.engine.device_mesh import place, seed_mesh
from dsd_jax.engine.generate import initial_states, make_blocks


@pytest.fixture(scope="module")
def block(task):
    """The compiled steps of one seed."""
    return make_blocks(task, seed_mesh(1))[0][1]


@pytest.fixture
def placed(task):
    """() -> states of seed 3 before the first step, and what they are given."""
    return lambda: place(seed_mesh(1), initial_states(task, [3]), task.shared)


def test_metrics_of_a_block_are_means_over_its_steps(block, placed):
    states, shared = placed()
    states, first = block(states, 0, 1, shared)
    states, second = block(states, 1, 2, shared)
    _, both = block(placed()[0], 0, 2, shared)
    assert both["loss"].shape == (1,)
    for name, value in both.items():
        np.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-5)


def test_a_block_reads_nothing_back_and_its_states_are_given_away(block, placed):
    """Between the steps the host only dispatches; the next states take the place of the last."""
    states, shared = placed()
    states, _ = block(states, 0, 1, shared)
    with jax.transfer_guard_device_to_host("disallow"):
        after, metrics = block(states, 1, 4, shared)
    assert isinstance(metrics["loss"], jax.Array)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states.params))
    assert int(after.step[0]) == 4


def test_a_trace_of_compiled_steps_is_written(block, placed, tmp_path):
    """The second block, of a few steps: what perfetto and what TensorBoard reads."""
    seen = []
    loop.run(
        [(40, block)], *placed(), lambda p: seen.append(p.done), lambda: len(seen) >= 2,
        profile=tmp_path,
    )  # fmt: skip
    assert seen == [1, 1 + loop.PROFILED_STEPS]
    (folder,) = (tmp_path / "plugins" / "profile").iterdir()
    names = [path.name for path in folder.iterdir()]
    assert "perfetto_trace.json.gz" in names
    assert any(name.endswith(".xplane.pb") for name in names)


class Counted:
    """In the place of a block; its states count the steps."""

    def compile(self, states, shared, meanwhile):
        pass

    def __call__(self, states, start, stop, shared):
        return Done(step=states["step"] + stop - start), {"loss": jnp.zeros(1)}


class Done(dict):
    step = np.zeros(1)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_what_is_kept_of_a_phase_is_of_its_last_step_whatever_a_block_takes(monkeypatch, seconds):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", seconds)
    seen = []
    loop.run([(20, Counted())], Done(step=0), None, lambda p: seen.append(p.done))
    assert seen == ([*range(1, 21)] if not seconds else [1, 9, 19, 20])


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


def test_the_first_run_of_a_program_is_undisturbed():
    """It waits for the threads beside it; those that come later wait for its end."""
    events, first, run = [], threading.Event(), threading.Event()

    def thread(name, begun, until):
        with turns.beside_a_run():
            begun.set()
            until.wait(60)
            events.append(name)

    def quiet():
        with turns.undisturbed():
            run.set()
            events.append("run")

    late = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        done = threading.Event()
        pool.submit(thread, "early", first, done)
        assert first.wait(60)
        pool.submit(quiet)
        while not turns._DOOR.locked():
            time.sleep(0.001)
        pool.submit(thread, "late", late, done)
        assert not run.is_set() and not late.wait(0.05)
        done.set()
    assert events == ["early", "run", "late"]


class Steps(NamedTuple):
    step: jax.Array = jnp.array([2])


def test_phases_follow_one_another():
    """And the second is compiled on another thread while the first goes on."""
    calls, compiled = [], []

    def phase(name, fails=False):
        class Block:
            def compile(self, states, shared, meanwhile):
                compiled.append((name, threading.current_thread() is threading.main_thread()))
                if fails and not compiled[-1][1]:
                    raise ValueError("no memory beside a run")
                meanwhile()

            def __call__(self, states, start, stop, shared):
                calls.append((name, start, stop))
                return states, {}

        return Block()

    told = []
    loop.run(
        [(5, phase("early")), (7, phase("late")), (8, phase("last", fails=True))],
        Steps(), None, lambda p: None, on_phase=told.append,
    )  # fmt: skip
    assert calls[0] == ("early", 2, 3)
    assert [c[1] for c in calls[1:]] == [c[2] for c in calls[:-1]]
    assert ("late", 5, 6) in calls
    assert calls[-1] == ("last", 7, 8)
    assert compiled == [("early", True), ("late", False), ("last", False), ("last", True)]
    assert len(told) == 3


def test_rounds_are_prepared_at_their_first_step():
    """Rounds of 3 steps from step 4 on, begun once; the occupancy grid every second step."""
    calls = []

    def noted(name):
        def one(states, *shared):
            calls.append((name, states))
            return states

        return one

    def step(states, shared):
        return states + 1, {"loss": jnp.zeros(1)}

    add = lambda a, b: a  # noqa: E731
    rounds = loop.Rounds(noted("begin"), noted("prepare"), 3, 4)
    block = loop.Block(step, noted("refresh"), 2, None, add, *rounds)
    states, _ = block(4, 4, 11, None)
    assert states == 11
    assert [at for name, at in calls if name == "prepare"] == [4, 7, 10]
    assert [at for name, at in calls if name == "refresh"] == [4, 6, 8, 10]
    assert calls[:3] == [("prepare", 4), ("begin", 4), ("refresh", 4)]
    assert [name for name, _ in calls].count("begin") == 1
