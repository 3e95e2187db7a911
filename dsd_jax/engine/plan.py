"""How n seeds of one task are spread over time and devices.

Letters: n seeds in all, c seeds a chunk.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from dsd_jax.engine import checkpoint, hosts, memory
from dsd_jax.engine.device_mesh import devices_of_all, seed_mesh
from dsd_jax.engine.picture_memory import refuse_too_large
from dsd_jax.engine.seeds import chunk_length, chunk_seeds
from dsd_jax.engine.task import Task
from dsd_jax.recipe.recipe import Recipe


@dataclass(frozen=True)
class Devices:
    """What a run may use of the devices.

    Attributes:
        count: how many of each process; 0 takes all.
        max_memory_gb: 1e9 bytes that it may use on one, the prior included, or, on a CPU, in all; 0
            asks the device.
        shard_prior: how many share one copy of the prior's weights; 0 takes the fewest with which
            one seed fits.
    """

    count: int = 0
    max_memory_gb: float = 0.0
    shard_prior: int = 0


class Plan(NamedTuple):
    """How n seeds are spread over time and devices.

    Attributes:
        seeds: all, in the order in which they were given.
        chunks: seeds that run together; all chunks have one length, see `chunk_seeds`.
        needs: estimated memory.
        device_mesh: of the devices that share a chunk.
        limit: bytes of one memory that may be used: a device's, or, on a CPU, the process's.
        program: bytes of it that hold neither weights nor seeds.
    """

    seeds: list[int]
    chunks: list[list[int]]
    needs: memory.Needs
    device_mesh: Mesh
    limit: int
    program: int = 0

    @property
    def model(self) -> int:
        """How many devices share one copy of the prior's weights."""
        return self.device_mesh.shape.get("model", 1)

    @property
    def bytes_needed(self) -> int:
        """Of one memory, at the busiest moment; estimated."""
        own = self.needs.shared // self.model + self.on_each * self.needs.per_seed
        local = self.device_mesh.size // jax.process_count()
        sharing = max(local, 1) if memory.costs().together else 1
        compiling = memory.costs().compiling + sharing * self.needs.shared // self.model
        return max(compiling, self.program + sharing * own)

    @property
    def on_each(self) -> int:
        """How many seeds of a chunk a device has."""
        return len(self.chunks[0]) // self.device_mesh.shape["seed"]

    def __str__(self) -> str:
        n, c = len(self.seeds), len(self.chunks[0])
        text = f"{n} seed{'s' * (n > 1)}"
        if len(self.chunks) > 1:
            text += f" in {len(self.chunks)} chunks of {c}"
        if self.device_mesh.size > 1:
            text += f" over {self.device_mesh.size} devices"
        if self.model > 1:
            text += f", the prior split over {self.model}"
        if jax.process_count() > 1:
            text += f" of {jax.process_count()} processes"
        parts = _described(self.needs, self.program)
        return f"{text}; memory: {parts}, in all {memory.gb(self.bytes_needed)}"

    @property
    def warning(self) -> str | None:
        """What to say where even one seed is estimated not to fit, else None."""
        if self.bytes_needed <= self.limit or self.on_each > 1:
            return None
        return _too_much(self.needs, self.program, f"the device has {memory.gb(self.limit)}")

    def refuse_hopeless(self) -> None:
        """Raise ValueError, in one line, where memory holds less than half of what is needed."""
        if self.bytes_needed <= 2 * self.limit:
            return
        have = f"the device has {memory.gb(self.limit)}"
        if self.on_each == 1:
            raise ValueError(_too_much(self.needs, self.program, have))
        raise ValueError(
            f"{len(self.seeds)} seeds at once need about {memory.gb(self.bytes_needed)} of memory "
            f"({_described(self.needs, self.program)}), but {have}; name fewer --seeds"
        )


def all_at_once(task: Task, seeds: Sequence[int], needs: memory.Needs | None = None) -> Plan:
    """The plan of seeds that run together, as studies run those of a prompt.

    Args:
        needs: where they are not those of the task's objects; then one device has them all.

    Raises ValueError where there is no room for them.
    """
    seeds, devices = list(seeds), jax.local_devices()
    if needs is None:
        needs = memory.needs(task.prior, task.recipe, task.condition, task.shared.pictures)
    else:
        devices = devices[:1]
    limit, program = memory.bytes_available(), memory.program(task.recipe)
    plan = Plan(seeds, [seeds], needs, seed_mesh(len(seeds), devices), limit, program)
    plan.refuse_hopeless()
    return plan


def make_plan(
    task: Task,
    seeds: Sequence[int],
    devices: Devices = Devices(),
    saved: Mapping[int, checkpoint.Saved] = MappingProxyType({}),
) -> Plan:
    """Split seeds into chunks that fit.

    Args:
        devices: what may be used of them.
        saved: where seeds have got to. A chunk holds seeds that are equally far; if they ran on as
            many devices, in chunks as long as before.

    Raises:
        ValueError: one seed does not fit into `max_memory_gb`, or that is no size; or nowhere near
            into the device, or its pictures do not; there are not so many devices, or `shard_prior`
            does not divide them.
    """
    pictures = task.shared.pictures
    needs = memory.needs(task.prior, task.recipe, task.condition, pictures)
    max_memory_gb = devices.max_memory_gb
    if not 0 <= max_memory_gb < math.inf:
        raise ValueError(f"--max-memory-gb must be a number from 0 on, not {max_memory_gb}")
    there = devices_of_all(devices.count)
    limit = _limit(task, needs, max_memory_gb)
    if not devices.shard_prior and jax.process_count() == 1:
        there = there[: _able(len(there), task.recipe, needs, limit)]
    local = len(there) // jax.process_count()
    room, program = memory.on_each(limit, local, task.recipe), memory.program(task.recipe)
    model = _model_axis(local, devices.shard_prior, needs, room)
    fit = (room - needs.shared // model) // needs.per_seed
    if max_memory_gb and (fit < 1 or limit < memory.costs().compiling):
        least = math.ceil(_for_one(needs, program) / 1e7) / 100
        said = _too_much(needs, program, f"--max-memory-gb is {max_memory_gb:g}")
        raise ValueError(f"{said}, or give --max-memory-gb {least:.2f}")
    groups, fit, together = len(there) // model, max(1, fit), jax.process_count() > 1
    c = chunk_length(len(seeds), fit, groups, all_of_them=together)
    for before in saved.values():
        used = seed_mesh(before.length, there, model).size
        every = not together or used == len(there)
        if before.devices == used and every and before.length <= groups * fit:
            c = before.length
    chunks = _equally_far(seeds, c, saved)
    plan = Plan(list(seeds), chunks, needs, seed_mesh(c, there, model), limit, program)
    plan.refuse_hopeless()
    refuse_too_large(task.recipe, needs.field + needs.method, len(seeds), c)
    return plan


def _limit(task: Task, needs: memory.Needs, max_memory_gb: float) -> int:
    """Bytes of one memory that may be used; the smallest of all processes'."""
    limit = int(max_memory_gb * 1e9)
    if not limit and memory.costs().together:
        limit = memory.bytes_available()
    elif not limit:
        leaves = [
            leaf for leaf in jax.tree.leaves(task.prior.params) if isinstance(leaf, jax.Array)
        ]
        there = jax.local_devices()[0]
        on_host = any(leaf.devices() != {there} for leaf in leaves)
        limit = memory.bytes_available() + (0 if on_host else needs.prior)
    if jax.process_count() > 1:
        limit //= hosts.on_this_machine() if memory.costs().together else 1
        limit = int(hosts.everyones(limit / 1e6).min() * 1e6)
    return limit


def _able(devices: int, recipe: Recipe, needs: memory.Needs, limit: int) -> int:
    """How many of a process's devices there is memory for where they share one; at least one."""
    if not memory.costs().together:
        return devices
    least = needs.shared + needs.per_seed
    able = (d for d in range(devices, 1, -1) if least <= memory.on_each(limit, d, recipe))
    return next(able, 1)


def _model_axis(devices: int, shard_prior: int, needs: memory.Needs, limit: int) -> int:
    """Over how many of a process's devices, each of which has `limit`, the prior is split."""
    able = [k for k in range(1, devices + 1) if devices % k == 0]
    if shard_prior:
        if shard_prior not in able:
            raise ValueError(
                f"--shard-prior {shard_prior} does not divide the devices, of which there "
                f"{'is' if devices == 1 else 'are'} {devices}"
            )
        return shard_prior
    return next((k for k in able if needs.shared // k + needs.per_seed <= limit), 1)


def _equally_far(seeds: Sequence[int], c: int, saved: Mapping[int, checkpoint.Saved]):
    """Chunks of c seeds each, those furthest first."""
    steps = {seed: saved[seed].step if seed in saved else 0 for seed in seeds}
    groups = [[s for s in seeds if steps[s] == step] for step in sorted({*steps.values()})[::-1]]
    return [chunk for group in groups for chunk in chunk_seeds(group, c)]


def _described(needs: memory.Needs, program: int) -> str:
    """What a run takes, part by part."""
    return f"the program {memory.gb(program)}, {needs}" if program else str(needs)


def _for_one(needs: memory.Needs, program: int) -> int:
    """Bytes of one memory that one seed needs."""
    return max(program + needs.per_seed, memory.costs().compiling) + needs.shared


def _too_much(needs: memory.Needs, program: int, have: str) -> str:
    """One line for a user whose device is too small for one seed."""
    return (
        f"one seed needs about {memory.gb(_for_one(needs, program))} of memory "
        f"({_described(needs, program)}), but {have}; make --resolution, --samples or --views "
        "smaller, or take a smaller prior"
    )
