"""A training stage that is compiled in a thread of its own, while views are rendered beside it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from dsd_jax.data import pictures
from dsd_jax.training import common, stage


class Ahead:
    """The stage of `stage.train` for some losses; it starts to compile at once.

    Args:
        mesh: devices along "data".
        losses: as for `common.make_step`.
        params: weights to start from.
        data: what it will train on, arrays or jax.ShapeDtypeStructs.
        constants: like those that it will be given.
        key: of everything random.
    """

    def __init__(self, mesh, losses: Sequence[Callable], params, data, constants: dict, key):
        self.mesh, self.key, self.params = mesh, key, params
        self.state = common.replicate(mesh, common.init_state(params))
        constants = common.replicate(mesh, constants)
        arguments = self.state, common.shapes_of(mesh, data), constants, key
        step = common.make_step(mesh, losses, params)
        pool = ThreadPoolExecutor(1)
        self.compiled = pool.submit(step.compile, *arguments)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until it is compiled."""
        self.compiled.result()

    def train(self, data, constants: dict, **settings):
        """Averaged weights, and whether the budget is spent; settings as for `stage.train`."""
        state, finished = stage.train(
            self.state,
            self.compiled.result(),
            common.shard_objects(self.mesh, data),
            common.replicate(self.mesh, constants),
            self.key,
            **settings,
        )
        return jax.device_get(common.unstacked(state.average, self.params)), finished


def render(data, indices, views, resolution: int, mesh, ahead: Ahead, log: Callable[[str], None]):
    """All views, on the devices, [n, v, h, w, 4] uint8 sharded by object.

    The compiler of `ahead` times its candidates on the first device. It must be alone there:
    beside other work it chose convolutions five times slower.
    """
    start, (compiling, *devices) = time.time(), mesh.devices.flat
    if not devices:
        ahead.wait()
        devices = [compiling]
    rgba = pictures.render_views(
        data,
        np.arange(len(data)),
        views,
        resolution=resolution,
        batch=8 * len(devices),
        devices=devices,
    )
    log(f"rendered {rgba.shape[0] * rgba.shape[1]} views in {time.time() - start:.0f} s")
    rgba = common.shard_objects(mesh, rgba[indices])
    log(f"views are on the devices after {time.time() - start:.0f} s")
    return rgba
