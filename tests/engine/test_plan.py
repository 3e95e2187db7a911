"""How seeds are spread over time and devices; over several devices, see test_device_mesh.py."""

from types import SimpleNamespace

import pytest

from dsd_jax.engine import host_memory, memory
from dsd_jax.engine.checkpoint import Saved
from dsd_jax.engine.plan import Devices, make_plan
from dsd_jax.recipe.recipe import changed


def limited(gigabytes):
    return Devices(max_memory_gb=gigabytes)


def test_sixteen_seeds_of_sd21_fit_16_gb_in_chunks(big):
    plan = make_plan(big, range(16), limited(0.8 * 16))
    needs, c = plan.needs, len(plan.chunks[0])
    assert c > 1 and len({s for chunk in plan.chunks for s in chunk}) == 16
    assert plan.bytes_needed == needs.shared + c * needs.per_seed <= 0.8 * 16e9
    assert 0 < needs.in_turn < needs.network + needs.encoder
    assert needs.per_seed == sum(needs[2:-1]) - needs.in_turn
    assert f"16 seeds in {len(plan.chunks)} chunks of {c}; memory: prior 3.15 GB, " in str(plan)
    assert f", of which {memory.gb(needs.in_turn)} in turn), in all " in str(plan)
    assert plan.warning is None
    alone = make_plan(big, range(16), limited(1000))
    assert alone.chunks == [list(range(16))]


def test_a_cpu_counts_the_process(task, monkeypatch):
    """Python, JAX and its compiler; the least is said."""
    plan = make_plan(task, [0], limited(100))
    program = memory.ON_CPU.program
    assert 1e9 < program < memory.ON_CPU.compiling <= plan.bytes_needed < 2e9
    monkeypatch.setattr(host_memory, "free", lambda: 10**12)
    many = make_plan(task, range(10**4), limited(100))
    assert many.bytes_needed == program + many.needs.shared + 10**4 * many.needs.per_seed
    refined = task._replace(recipe=changed(task.recipe, rounds=1))
    assert make_plan(refined, [0], limited(100)).bytes_needed > 2.9e9
    assert f"memory: the program {memory.gb(program)}, prior " in str(plan)
    with pytest.raises(ValueError) as error:
        make_plan(task, [0], limited(memory.ON_CPU.compiling / 1e9 - 0.01))
    least = str(error.value).rpartition("or give --max-memory-gb ")[2]
    assert make_plan(task, [0], limited(float(least))).chunks == [[0]]


def test_what_does_not_fit_is_said_in_one_line(big, monkeypatch):
    with pytest.raises(
        ValueError, match=r"one seed needs about .* but --max-memory-gb is 3; make "
    ):
        make_plan(big, [0, 1], limited(3))
    for size in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"--max-memory-gb must be .* from 0 on, not {size}"):
            make_plan(big, [0, 1], limited(size))
    monkeypatch.setattr(memory, "bytes_available", lambda: 10**9)
    plan = make_plan(big, [0, 1])
    assert plan.chunks == [[0], [1]]
    assert "but the device has 2.90 GB; make --resolution" in plan.warning


def test_a_chunk_holds_seeds_that_are_equally_far(task):
    """Those furthest go first, in chunks as long as before; the last is filled up."""
    steps = {3: 4, 5: 9, 7: 9}
    saved = {seed: Saved(SimpleNamespace(step=step), {}, 2, 1) for seed, step in steps.items()}
    plan = make_plan(task, [1, 3, 5, 7], limited(100), saved)
    assert plan.chunks == [[5, 7], [3, 3], [1, 1]] and plan.seeds == [1, 3, 5, 7]
