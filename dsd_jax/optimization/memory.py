"""How many seeds fit into a device's memory, estimated before anything is compiled.

Letters: n points sampled in a step, k parameters of a scene.
"""

import math

import jax

from dsd_jax.optimization.presets import Settings
from dsd_jax.rendering.scene import Scene

# Bytes kept for the backward pass of one sampled point: per hash-grid level eight corners' indices,
# weights and features; and the MLP's and the compositing's activations.
_PER_LEVEL, _PER_POINT = 8 * (4 + 4 + 4), 512
# Bytes a pixel of the prior's image costs while a view is encoded and differentiated.
_PER_PIXEL = 4 * 40 * 32
_USABLE = 0.8


def bytes_per_seed(
    scene: Scene,
    settings: Settings,
    image_size: int,
    latent_shape: tuple[int, ...],
    conditionings: int = 2,
) -> int:
    """Memory that one more seed of a chunk takes, without what all seeds share.

    `conditionings` go through the network in one call: text and unconditional, and negatives.
    """
    shapes = jax.tree.leaves(jax.eval_shape(scene.init, jax.random.key(0)))
    k = sum(math.prod(leaf.shape) for leaf in shapes)
    side = max(settings.resolution, settings.late_resolution)
    n = settings.views * side**2 * settings.samples
    state = 4 * (3 + 2) * k + 4 * settings.occupancy_resolution**3
    render = n * (settings.levels * _PER_LEVEL + _PER_POINT)
    encode = settings.views * image_size**2 * _PER_PIXEL
    network = conditionings * settings.views * math.prod(latent_shape) * 4 * 2000
    return state + render + encode + network


def bytes_available(device=None) -> int:
    """What the seeds may take on a device: four fifths of what is free on it.

    CPU devices share the free RAM evenly.
    """
    device = device or jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(_USABLE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(_USABLE * _free_ram() / jax.local_device_count())


def seeds_that_fit(per_seed: int, available: int, devices: int) -> int:
    """Seeds of one chunk over so many equal devices; at least one a device."""
    return devices * max(1, available // per_seed)


def _free_ram() -> int:
    """Free bytes of this machine, as far as Linux tells; else 4 GiB."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30
