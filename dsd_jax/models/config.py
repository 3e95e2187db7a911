"""Shapes of the networks: frozen dataclasses read from diffusers' and transformers' config.json.

Each class has `from_dict` and `to_dict`; the latter gives the full file, which PyTorch reads too.
"""

from dataclasses import asdict, dataclass

from dsd_jax.models.config_limits import (
    MAX_TRANSFORMERS,
    TEXT_BOUNDS,
    TOKEN_ID_BOUNDS,
    TOKEN_IDS,
    UNET_BOUNDS,
    UNET_FIXED,
    VAE_BOUNDS,
    VAE_FIXED,
    VISION_BOUNDS,
)
from dsd_jax.models.entries import (
    check_fixed,
    check_flags,
    check_numbers,
    levels_of,
    per_level,
    require,
    shown,
)

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


def _flags(table: dict, names, entry: str) -> tuple[bool, ...]:
    for name in levels_of("unet", entry, names):
        if not isinstance(name, str) or name not in table:
            known = ", ".join(table)
            raise ValueError(f"unet config: {entry} has {shown(name)}, supported: {known}")
    return tuple(table[name] for name in names)


def _names(table: dict, flags) -> list[str]:
    by_flag = {flag: name for name, flag in table.items()}
    return [by_flag[flag] for flag in flags]


def _check_clip(part: str, config, bounds: dict) -> None:
    check_numbers(part, vars(config), bounds)
    if config.hidden_act not in ("gelu", "quick_gelu"):
        raise ValueError(
            f"{part} config: hidden_act {shown(config.hidden_act)} is not supported, "
            "only 'gelu' and 'quick_gelu'"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"{part} config: hidden_size {config.hidden_size} must be a multiple of "
            f"{config.num_attention_heads} attention heads"
        )


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet; tuples have one entry a level, from the finest to the coarsest.

    Attributes:
        down_attention, up_attention: whether a level has transformers on its way down and up.
        heads: number of attention heads (which diffusers calls attention_head_dim).
        sample_size: side of the latents it was trained on.
        camera_dim: width of the camera vector, None without one (our entry in config.json).
    """

    block_out_channels: tuple[int, ...]
    down_attention: tuple[bool, ...]
    up_attention: tuple[bool, ...]
    layers_per_block: tuple[int, ...]
    heads: tuple[int, ...]
    transformer_layers_per_block: tuple[int, ...]
    cross_attention_dim: int
    sample_size: int
    in_channels: int = 4
    out_channels: int = 4
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    camera_dim: int | None = None

    @classmethod
    def from_dict(cls, config: dict) -> "UNetConfig":
        """From unet/config.json; absent entries take diffusers' defaults.

        Raises ValueError for a missing shape or for an entry that asks for an unsupported part.
        """
        check_fixed("unet", config, UNET_FIXED)
        require("unet", config, ("block_out_channels", "cross_attention_dim"))
        require("unet", config, ("sample_size", "down_block_types", "up_block_types"))
        channels = levels_of("unet", "block_out_channels", config["block_out_channels"])
        n = len(channels)

        def levels(name, default):
            given = config.get(name)
            return per_level(default if given is None else given, n, name)

        named = config.get("num_attention_heads") is not None
        heads = "num_attention_heads" if named else "attention_head_dim"
        derived = {
            "block_out_channels": channels,
            "down_attention": _flags(_DOWN, config["down_block_types"], "down_block_types"),
            "up_attention": _flags(_UP, config["up_block_types"], "up_block_types")[::-1],
            "layers_per_block": levels("layers_per_block", 2),
            "heads": levels(heads, 8),
            "transformer_layers_per_block": levels("transformer_layers_per_block", 1),
        }
        plain = {k: config[k] for k in cls.__dataclass_fields__ if k in config and k not in derived}
        return cls(**derived, **plain)

    def __post_init__(self):
        values, n = vars(self), len(self.block_out_channels)
        check_numbers("unet", values, UNET_BOUNDS)
        check_flags("unet", values, ("use_linear_projection", "flip_sin_to_cos"))
        if self.camera_dim is not None:
            check_numbers("unet", values, {"camera_dim": (1, 1024)})
        if len(self.down_attention) != n or len(self.up_attention) != n:
            raise ValueError(f"unet config: {n} levels need {n} down and up block types")
        for channels, heads in zip(self.block_out_channels, self.heads, strict=True):
            if channels % heads or channels % self.norm_num_groups:
                raise ValueError(
                    f"unet config: {channels} channels must be a multiple of {heads} heads and of "
                    f"{self.norm_num_groups} norm groups"
                )
        if self.block_out_channels[0] % 2:
            raise ValueError("unet config: the first of block_out_channels has to be even")
        if self.sample_size % 2 ** (n - 1):
            raise ValueError(
                f"unet config: sample_size {self.sample_size} must be a multiple of "
                f"{2 ** (n - 1)}: {n} levels halve it {n - 1} times"
            )
        counts = zip(self.layers_per_block, self.transformer_layers_per_block, strict=True)
        if sum((2 * layers + 1) * depth for layers, depth in counts) > MAX_TRANSFORMERS:
            raise ValueError(
                "unet config: transformer_layers_per_block = "
                f"{shown(self.transformer_layers_per_block)} makes more than {MAX_TRANSFORMERS} "
                "transformers, which no known model has"
            )

    def to_dict(self) -> dict:
        """The entries of unet/config.json; camera_dim is written only if there is a camera."""
        config = asdict(self)
        config["down_block_types"] = _names(_DOWN, config.pop("down_attention"))
        config["up_block_types"] = _names(_UP, config.pop("up_attention")[::-1])
        config["attention_head_dim"] = config.pop("heads")
        if self.camera_dim is None:
            del config["camera_dim"]
        return {"_class_name": "UNet2DConditionModel", **config}


@dataclass(frozen=True)
class VAEConfig:
    """Shape of an autoencoder; `block_out_channels` runs from full resolution to the latents'."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int = 1
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    sample_size: int = 512
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    @classmethod
    def from_dict(cls, config: dict) -> "VAEConfig":
        """From vae/config.json; absent entries take diffusers' defaults.

        Raises ValueError for a missing shape or for an entry that asks for an unsupported part.
        """
        name = config.get("_class_name", "AutoencoderKL")
        check_fixed("vae", config, VAE_FIXED)
        if name not in ("AutoencoderKL", "FlaxAutoencoderKL"):
            raise ValueError(f"vae config: {shown(name)} is not supported, only AutoencoderKL")
        require("vae", config, ("block_out_channels",))
        for entry, name in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            if any(kind != name for kind in levels_of("vae", entry, config.get(entry, [name]))):
                raise ValueError(f"vae config: {entry} may hold {name} only")
        values = {name: config[name] for name in cls.__dataclass_fields__ if name in config}
        channels = levels_of("vae", "block_out_channels", config["block_out_channels"])
        return cls(**{**values, "block_out_channels": channels})

    def __post_init__(self):
        check_numbers("vae", vars(self), VAE_BOUNDS)
        flags = ("mid_block_add_attention", "use_quant_conv", "use_post_quant_conv")
        check_flags("vae", vars(self), flags)
        if self.in_channels != self.out_channels:
            raise ValueError(
                f"vae config: in_channels {self.in_channels} and out_channels "
                f"{self.out_channels} have to be the same, 3, or 4 with opacity"
            )
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"vae config: {channels} channels must be a multiple of "
                    f"{self.norm_num_groups} norm groups"
                )

    @property
    def factor(self) -> int:
        """How many pixels a latent pixel spans along each axis."""
        return 2 ** (len(self.block_out_channels) - 1)

    def to_dict(self) -> dict:
        """The entries of vae/config.json."""
        n = len(self.block_out_channels)
        types = {
            "down_block_types": ["DownEncoderBlock2D"] * n,
            "up_block_types": ["UpDecoderBlock2D"] * n,
        }
        return {"_class_name": "AutoencoderKL", **asdict(self), **types}


@dataclass(frozen=True)
class ClipTextConfig:
    """Shape of a CLIP text encoder; names as in transformers."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    pad_token_id: int = 1
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, config: dict) -> "ClipTextConfig":
        """From text_encoder/config.json (transformers' CLIPTextConfig).

        Raises ValueError for a missing shape or an unsupported activation.
        """
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads")  # fmt: skip
        require("text_encoder", config, names)
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})

    def __post_init__(self):
        _check_clip("text_encoder", self, TEXT_BOUNDS)
        given = [name for name in TOKEN_IDS if getattr(self, name) is not None]
        check_numbers("text_encoder", vars(self), dict.fromkeys(given, TOKEN_ID_BOUNDS))

    def to_dict(self) -> dict:
        """The entries of text_encoder/config.json."""
        kind = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
        return {**kind, **asdict(self)}


@dataclass(frozen=True)
class ClipVisionConfig:
    """Shape of a CLIP vision encoder with projection; names as in transformers."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, config: dict) -> "ClipVisionConfig":
        """From image_encoder/config.json (transformers' CLIPVisionConfig).

        Raises ValueError for a missing shape or an unsupported activation.
        """
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        require("image_encoder", config, names)
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})

    def __post_init__(self):
        _check_clip("image_encoder", self, VISION_BOUNDS)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_encoder config: image_size {self.image_size} must be a multiple of "
                f"patch_size {self.patch_size}"
            )

    def to_dict(self) -> dict:
        """The entries of image_encoder/config.json."""
        kind = {"model_type": "clip_vision_model"}
        return {"architectures": ["CLIPVisionModelWithProjection"], **kind, **asdict(self)}
