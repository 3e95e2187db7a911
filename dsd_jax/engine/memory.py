"""What a run holds in a device's memory, estimated before anything is compiled.

The coefficients are fitted: on a CPU to what XLA says of compiled steps of Toybox and SD 2.1-base
in float32, on accelerators to what an H200 held of both in bfloat16, with 4 and with 16 seeds.
There the sum comes out within 10 %. On a CPU the process itself counts, since all devices share
its memory. GB are 1e9 bytes.

Letters: n points sampled in a step, k parameters of a scene, b bytes of a number of the prior's
networks.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distillation import TrainedMethod
from dsd_jax.engine import host_memory
from dsd_jax.engine.costs import ON_ACCELERATOR, ON_CPU, Costs
from dsd_jax.fields.base import uncompleted
from dsd_jax.fields.surface import SurfaceField
from dsd_jax.models import attention, lora
from dsd_jax.models.config import UNetConfig, VAEConfig
from dsd_jax.priors.base import Prior
from dsd_jax.recipe import kept_ode, targets
from dsd_jax.recipe.recipe import Recipe, phases
from dsd_jax.rendering.chunks import step_chunk

# Parameters, two moments of Adam, gradient and update.
_COPIES = 5
# Numbers at work in the encoder while it only runs forward, or in the decoder, by pixel and channel
# of their finest level.
_FORWARD = 5
# Numbers at work in the UNet, by latent pixel and channel of its finest level.
_NETWORK = 21
# Float32 copies of an attention's weights [heads, tokens, tokens] where they are held at all.
_WEIGHTS = 3
# Where an adapter of the UNet is trained: numbers kept for its backward pass, by latent pixel and
# channel of each layer, and copies of each attention's weights.
_TRAINING, _WEIGHTS_TRAINING = 59, 4
_USABLE = 0.8


def costs() -> Costs:
    """Those of the devices that there are."""
    return ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR


class Needs(NamedTuple):
    """Bytes on one device: the prior's weights, which all seeds share, and what one seed adds.

    Attributes:
        prior: weights.
        kernels: those of them that are kept in another layout, too.
        field: parameters, optimiser state, occupancy grid and targets of the refinement.
        rendering: what the backward pass of the views keeps.
        encoder: the VAE's encoder and its backward pass, for all views of a step.
        network: the UNet, for all views and conditionings of one evaluation.
        cache: what is kept of the seed's ODE.
        method: the network that the method trains for the seed, and its training.
        in_turn: how much rendering and networks share, since they do not work at the same time.
    """

    prior: int
    kernels: int
    field: int
    rendering: int
    encoder: int
    network: int
    cache: int
    method: int
    in_turn: int

    @property
    def shared(self) -> int:
        """What all seeds of a device share."""
        return self.prior + self.kernels

    @property
    def per_seed(self) -> int:
        return sum(self[2:-1]) - self.in_turn

    def __str__(self) -> str:
        sizes = zip(self._fields[2:-1], self[2:-1], strict=True)
        parts = ", ".join(f"{name} {gb(size)}" for name, size in sizes if size)
        if self.in_turn:
            parts += f", of which {gb(self.in_turn)} in turn"
        return f"prior {gb(self.shared)}, each seed {gb(self.per_seed)} ({parts})"


def gb(size: float) -> str:
    """1234567890 -> "1.23 GB"; small sizes keep two digits, 0.0056 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e9:.2g} GB"


def needs(prior: Prior, recipe: Recipe, condition: Any, pictures: int = 0) -> Needs:
    """What a run takes at its largest.

    Args:
        prior: its `params` are those that the steps use. Of one that does not say what its networks
            are only weights and renderings are counted.
        condition: what it was told.
        pictures: of how many each step also renders the view.
    """
    stages = [stage for _, stage in phases(recipe)]
    shapes = jax.tree.leaves(jax.eval_shape(recipe.scene.init, jax.random.key(0)))
    k = sum(math.prod(leaf.shape) for leaf in shapes)
    views = recipe.camera.views
    work, kept = max((_view(stage) for stage in stages), key=sum)
    weights = sum(_bytes(leaf) for leaf in jax.tree.leaves(prior.params))
    encoder, network, method = _networks(prior, recipe, condition, stages)
    rendering, targets = views + pictures, _targets(prior, recipe, pictures)
    busiest = max(rendering * (work + kept), _fit(recipe))
    return Needs(
        prior=weights,
        kernels=int(costs().kernels * weights),
        field=4 * (_COPIES * k + recipe.render.occupancy_resolution**3) + targets,
        rendering=busiest,
        encoder=encoder,
        network=network,
        cache=kept_ode.size(prior, condition, recipe),
        method=method,
        in_turn=min(rendering * work, encoder + network) if costs().in_turn else 0,
    )


def _bytes(leaf: Any) -> int:
    """Of an array or a number."""
    return math.prod(np.shape(leaf)) * jnp.result_type(leaf).itemsize


def _view(stage: Recipe) -> tuple[int, int]:
    """Bytes of rendering a view: of the points at work at a time, and of the others' features."""
    size, samples = stage.render.resolution, stage.render.samples
    rows, row = step_chunk(size, samples), size * samples
    levels, features, width = size_of_field(stage)
    work = rows * row * costs().of_point(levels, width)
    return int(work), (size - rows) * row * levels * features * 4


def size_of_field(recipe: Recipe) -> tuple[int, int, int]:
    """Levels, features a level and width of the MLP; as of a plain grid where it does not say."""
    field = uncompleted(recipe.field)
    field = uncompleted(getattr(field, "base", field))
    usual = {"levels": 1, "features": 4, "width": 16}
    levels, features, width = (getattr(field, name, value) for name, value in usual.items())
    return levels, features, width


def _fit(recipe: Recipe) -> int:
    """Bytes of the rays of a step of the refinement's fit; none where nothing is refined."""
    numbers, (levels, _, width) = recipe.refine, size_of_field(recipe)
    if recipe.becomes_surface:
        levels, width = levels + recipe.surface.distance_levels, width + SurfaceField.hidden_width
    points = numbers.rays * numbers.fit_samples if numbers.rounds else 0
    return int(points * costs().of_point(levels, width))


def _targets(prior: Prior, recipe: Recipe, pictures: int) -> int:
    """Bytes of the refinement's targets."""
    place = jax.eval_shape(lambda: targets.no_targets(prior, recipe, pictures))
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(place))


def _networks(
    prior: Prior, recipe: Recipe, condition: Any, stages: list[Recipe]
) -> tuple[int, int, int]:
    """Bytes of the encoder, of the UNet and of training an adapter of it, for one seed."""
    if prior.networks is None:
        return 0, 0, 0
    unet, vae, views = prior.networks.unet, prior.networks.vae, recipe.camera.views
    together = views if prior.denoises_together else 1
    size, spaces = prior.image_size, {stage.optimise.image_space for stage in stages}
    encoder = max(_pictures(vae.config, vae.dtype, size, space) for space in spaces)
    network = _network(unet.config, unet.dtype, prior.latent_shape[0], together)
    samples = prior.samples_per_prediction(condition)
    rank = recipe.method.lora_rank if isinstance(recipe.method, TrainedMethod) else 0
    passes = 1 + samples if recipe.method.differentiates else 1
    method = _method(prior, recipe, together, rank, passes) if rank else 0
    return views * encoder, views * samples * network, method


def _pictures(vae: VAEConfig, dtype, size: int, image_space: float) -> int:
    """Bytes that encoding one view takes, with its backward pass, and decoding if need be."""
    b, last = dtype.itemsize, vae.block_out_channels[-1]
    if image_space == 1:
        return b * _FORWARD * size**2 * vae.block_out_channels[0]
    kept, pixels, before = 0, size**2, vae.block_out_channels[0]
    for features in vae.block_out_channels:
        kept += pixels * (before + (2 * vae.layers_per_block - 1) * features)
        pixels, before = pixels // 4, features
    tokens = (size // vae.factor) ** 2
    kept += 6 * tokens * last
    middle = _attention(dtype, last, 1, tokens, _WEIGHTS) if vae.mid_block_add_attention else 0
    return int(b * costs().backward * kept) + middle


def _network(unet: UNetConfig, dtype, side: int, together: int) -> int:
    """Bytes that the UNet takes for one latent, `together` of which attend to one another."""
    work = dtype.itemsize * _NETWORK * side**2 * unet.block_out_channels[0]
    weights = [
        _attention(dtype, channels, heads, (side >> level) ** 2, _WEIGHTS)
        for level, (channels, heads, there) in enumerate(
            zip(unet.block_out_channels, unet.heads, unet.down_attention, strict=True)
        )
        if there
    ]
    return work + together * max(weights, default=0)


def _method(prior: Prior, recipe: Recipe, together: int, rank: int, passes: int) -> int:
    """Bytes that training an adapter of the UNet takes for one seed.

    The kernels with the adapter in them and their gradient; the adapter, as often as a scene's
    parameters; and what backward passes keep at once for each view.
    """
    shapes = prior.params["unet"]
    adapter = jax.eval_shape(lambda: lora.init(jax.random.key(0), shapes, rank))
    size = sum(leaf.size for leaf in jax.tree.leaves(adapter))
    unet = prior.networks.unet
    kept = _training(unet.config, unet.dtype, prior.latent_shape[0], together)
    return 2 * lora.merged_size(shapes) + 4 * _COPIES * size + recipe.camera.views * passes * kept


def _training(unet: UNetConfig, dtype, side: int, together: int) -> int:
    """Bytes that the UNet's backward pass keeps for one latent, see `_network`."""
    kept = 0
    levels = zip(
        unet.block_out_channels, unet.heads, unet.layers_per_block, unet.down_attention, strict=True
    )
    for level, (channels, heads, layers, there) in enumerate(levels):
        tokens, count = (side >> level) ** 2, 2 * layers + 1
        kept += count * dtype.itemsize * _TRAINING * tokens * channels
        weights = _attention(dtype, channels, heads, tokens, _WEIGHTS_TRAINING) if there else 0
        kept += count * together * weights
    return kept


def _attention(dtype, channels: int, heads: int, tokens: int, copies: int) -> int:
    """Bytes of the weights of an attention among tokens; none where a fused kernel computes it."""
    fused = attention.implementation(dtype, channels // heads) == "cudnn"
    return 0 if fused else 4 * copies * heads * tokens**2


def bytes_available() -> int:
    """What a run may take of one memory, beside what is there: four fifths of what is free.

    That is a device's, or, on a CPU, the machine's, where what the process has counts as free.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(_USABLE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(_USABLE * host_memory.free()) + host_memory.resident()


def program(recipe: Recipe) -> int:
    """Bytes of a memory that hold no weights and no seeds, while seeds of this recipe run."""
    return costs().program + (costs().refining if recipe.refine.rounds else 0)


def on_each(limit: int, devices: int, recipe: Recipe) -> int:
    """What weights and seeds may take on each of so many devices where one memory has `limit`."""
    return (limit - program(recipe)) // (devices if costs().together else 1)
