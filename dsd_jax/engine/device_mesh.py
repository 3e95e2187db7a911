"""Devices: which there are, the mesh that seeds are spread over, and what lies where on it.

A mesh has the axis "seed", along which no device waits for another, and perhaps a second one,
"model", along which the prior's weights are split. Letters: n seeds on the first axis.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dsd_jax.engine import hosts
from dsd_jax.engine.seeds import dividing_devices
from dsd_jax.recipe.state import State


def devices_of_all(each: int = 0) -> list[Any]:
    """The first `each` devices of every process (0: all), process by process.

    Raises:
        ValueError: this process has not so many.
    """
    have = jax.local_device_count()
    if not 0 <= each <= have:
        raise ValueError(f"--devices must be from 1 to the {have} that there are, not {each}")
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    by_process = [
        [device for device in devices if device.process_index == i]
        for i in range(jax.process_count())
    ]
    return [device for own in by_process for device in own[: each or have]]


def seed_mesh(n: int, devices=None, model: int = 1) -> Mesh:
    """A mesh whose axis "seed" has as many devices as divide n seeds evenly.

    Args:
        devices: those that there are; left out, all local ones.
        model: how many devices share one copy of the weights. From two on there is a second axis
            "model", and along "seed" stand groups of so many devices.
    """
    devices = jax.local_devices() if devices is None else devices
    groups = dividing_devices(n, len(devices) // model)
    if model == 1:
        return Mesh(np.array(devices[:groups]), ("seed",))
    return Mesh(np.array(devices[: groups * model]).reshape(groups, model), ("seed", "model"))


def place(mesh: Mesh, states: State, shared: Any) -> tuple[State, Any]:
    """n states on the mesh, split by seed, and `shared` (weights, text).

    `shared` is whole on each device, or, where the mesh has an axis "model", split along it.
    """
    shardings = jax.tree.map(partial(weight_sharding, mesh), shared)
    return hosts.put(states, NamedSharding(mesh, P("seed"))), hosts.put(shared, shardings)


def weight_sharding(mesh: Mesh, leaf: Any) -> NamedSharding:
    """How a weight lies on the mesh: its largest axis that can be is split over "model".

    Vectors are too small to be worth it.
    """
    parts = mesh.shape.get("model", 1)
    able = [i for i, size in enumerate(np.shape(leaf)) if size % parts == 0]
    if parts == 1 or np.ndim(leaf) < 2 or not able:
        return NamedSharding(mesh, P())
    axis = max(able, key=lambda i: np.shape(leaf)[i])
    return NamedSharding(mesh, P(*[None] * axis, "model"))
