"""UNets of the latent-diffusion code (its `openaimodel.py`), such as MVDream's and Zero-1-to-3's.

Their configuration, and the modules of their weights under `model.diffusion_model.` (or nothing):

    input_blocks.N.M   N counts conv_in, then residual blocks and downsamplers, fine to coarse
    middle_block.M     a residual block, a transformer, a residual block
    output_blocks.N.M  N counts residual blocks, coarse to fine
M is 0 for these, and the next free number for a transformer and then an upsampler, if there.

MVDream's port to diffusers is a folder whose unet keeps both the names and, in its config.json, the
entries (github.com/ashawkey/mvdream_diffusers, convert_mvdream_to_diffusers.py).
"""

import jax
import jax.numpy as jnp

from dsd_jax.models import keys
from dsd_jax.models.config import UNetConfig
from dsd_jax.models.entries import check_fixed, levels_of, per_level, require

_PREFIX = "model.diffusion_model."
_PROJECTION = "cc_projection."
# What MVDream's port calls its UNet; the entries that its config.json leaves out; and ImageDream's,
# whose extra layers are not supported.
_PORT = "MultiViewUNetModel"
_PORT_DEFAULTS = {"use_spatial_transformer": True, "use_linear_in_transformer": True}
_PORT_FIXED = {"ip_dim": 0}
_PORT_NEUTRAL = ("ip_weight",)
# Entries that change the network and are supported with one value only.
_FIXED = {
    "adm_in_channels": None,
    "conv_resample": True,
    "dims": 2,
    "disable_middle_self_attn": False,
    "disable_self_attentions": None,
    "n_embed": None,
    "num_attention_blocks": None,
    "num_classes": None,
    "num_heads_upsample": -1,
    "resblock_updown": False,
    "use_scale_shift_norm": False,
    "use_spatial_transformer": True,
}
_REQUIRED = (
    "image_size",
    "in_channels",
    "out_channels",
    "model_channels",
    "num_res_blocks",
    "attention_resolutions",
    "use_spatial_transformer",
    "context_dim",
)
_OPTIONAL = (
    "camera_dim",
    "channel_mult",
    "num_heads",
    "num_head_channels",
    "transformer_depth",
    "use_linear_in_transformer",
)
# Entries without effect on a trained network with transformers.
_NEUTRAL = (
    "dropout",
    "legacy",
    "use_bf16",
    "use_checkpoint",
    "use_fp16",
    "use_new_attention_order",
)
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def unet_config(config: dict) -> UNetConfig:
    """From the `unet_config.params` of a latent-diffusion model's YAML file.

    Raises ValueError for an entry that is missing, unknown, or asks for an unsupported part.
    """
    known = {*_FIXED, *_REQUIRED, *_OPTIONAL, *_NEUTRAL}
    for name in config:
        if name not in known:
            raise ValueError(f"unet config: entry {name} is not supported")
    require("unet", config, _REQUIRED)
    check_fixed("unet", config, _FIXED)

    def number(name):
        return per_level(config[name], 1, name)[0]

    factors = levels_of("unet", "channel_mult", config.get("channel_mult") or (1, 2, 4, 8))
    n = len(factors)
    scales = levels_of("unet", "attention_resolutions", config["attention_resolutions"])
    base = number("model_channels")
    channels = tuple(base * factor for factor in per_level(factors, n, "channel_mult"))
    attention = tuple(2**level in scales for level in range(n))
    depth = config.get("transformer_depth", 1)
    return UNetConfig(
        block_out_channels=channels,
        down_attention=attention,
        up_attention=attention,
        layers_per_block=per_level(config["num_res_blocks"], n, "num_res_blocks"),
        heads=_heads(config, channels),
        transformer_layers_per_block=per_level(depth, n, "transformer_depth"),
        cross_attention_dim=number("context_dim"),
        sample_size=number("image_size"),
        in_channels=number("in_channels"),
        out_channels=number("out_channels"),
        use_linear_projection=bool(config.get("use_linear_in_transformer")),
        camera_dim=None if config.get("camera_dim") is None else number("camera_dim"),
    )


def is_port(config: dict) -> bool:
    """Whether a unet/config.json is of MVDream's port to diffusers."""
    return config.get("_class_name") == _PORT


def port_config(config: dict) -> UNetConfig:
    """From unet/config.json of MVDream's port. Raises as `unet_config` does."""
    check_fixed("unet", config, _PORT_FIXED)
    entries = {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in {*_PORT_FIXED, *_PORT_NEUTRAL}
    }
    return unet_config(_PORT_DEFAULTS | entries)


def _heads(config: dict, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Attention heads of each level; -1 stands for an entry that is not given."""
    heads, width = (config.get(name, -1) for name in ("num_heads", "num_head_channels"))
    if width == -1 and heads == -1:
        raise ValueError("unet config: entry num_heads or num_head_channels is missing")
    if width == -1:
        return per_level(heads, len(channels), "num_heads")
    (width,) = per_level(width, 1, "num_head_channels")
    for c in channels:
        if c % width:
            raise ValueError(
                f"unet config: {c} channels must be a multiple of num_head_channels = {width}"
            )
    return tuple(c // width for c in channels)


def modules(config: UNetConfig) -> dict[str, str]:
    """{module in a latent-diffusion file: its name in diffusers} for every part of the UNet.

    A transformer is one entry, since its inner names agree.
    """
    c, last = config, len(config.block_out_channels) - 1
    table = {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    for part in ("time", "camera") if c.camera_dim is not None else ("time",):
        table |= {f"{part}_embed.{2 * i}": f"{part}_embedding.linear_{i + 1}" for i in (0, 1)}
    n = 1
    for level, count in enumerate(c.layers_per_block):
        stage = f"down_blocks.{level}"
        for i in range(count):
            table |= _block(f"input_blocks.{n + i}", stage, i, c.down_attention[level])
        n += count
        if level < last:
            table[f"input_blocks.{n}.0.op"] = f"{stage}.downsamplers.0.conv"
            n += 1
    table |= _block("middle_block", "mid_block", 0, attention=True)
    table |= _resnet("middle_block.2", "mid_block.resnets.1")
    n = 0
    for level in reversed(range(last + 1)):
        stage, attention = f"up_blocks.{last - level}", c.up_attention[level]
        count = c.layers_per_block[level] + 1
        for i in range(count):
            table |= _block(f"output_blocks.{n + i}", stage, i, attention)
        n += count
        if level > 0:
            place = f"output_blocks.{n - 1}.{2 if attention else 1}.conv"
            table[place] = f"{stage}.upsamplers.0.conv"
    return table


def _block(block: str, stage: str, i: int, attention: bool) -> dict[str, str]:
    """Entries of `modules` for a residual block and, if `attention`, the transformer after it."""
    table = _resnet(f"{block}.0", f"{stage}.resnets.{i}")
    return table | ({f"{block}.1": f"{stage}.attentions.{i}"} if attention else {})


def _resnet(block: str, resnet: str) -> dict[str, str]:
    return {f"{block}.{theirs}": f"{resnet}.{ours}" for theirs, ours in _RESNET.items()}


def rename(key: str, table: dict[str, str]) -> str:
    """`key` with the module it begins with, the longest in `table`, named as there.

    Raises ValueError for a key that begins with none of them, such as label_emb.0.0.weight.
    """
    parts = key.split(".")
    for n in reversed(range(1, len(parts))):
        module = ".".join(parts[:n])
        if module in table:
            return ".".join([table[module], *parts[n:]])
    raise ValueError(f"tensor {key} has no place in the model")


def expected(config: UNetConfig, shapes: dict) -> dict:
    """{name in a latent-diffusion file: (our path, leaf)} of the UNet's tree `shapes`, by name."""
    theirs = {ours: name for name, ours in modules(config).items()}
    places = keys.flatten(shapes)
    renamed = {rename(key, theirs): places[key] for key in places}
    return {name: renamed[name] for name in sorted(renamed)}


def cc_projection_shapes(config: UNetConfig) -> dict:
    """{"kernel": [d + 4, d], "bias": [d]} of Zero-1-to-3's layer from embedding and pose."""
    d = config.cross_attention_dim
    shapes = {"bias": (d,), "kernel": (d + 4, d)}
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
