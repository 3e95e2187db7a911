"""Our networks at their published sizes against PyTorch's, with the same random weights.

    python experiments/tools/parity.py                          # all, 20 minutes on 2 CPU cores
    python experiments/tools/parity.py --only unet-sd15 --out parity.md
    python experiments/tools/parity.py --bf16                   # on an accelerator, no PyTorch

Each network gets PyTorch's initial weights, noise on those that are constant, and random inputs.
The weights reach ours through a safetensors file and the loader that reads real ones. Prints the
relative L2 error of the outputs in float32 as a Markdown table; exit code 1 if one exceeds 1e-4 or
the numbers of parameters differ. Needs the extra `parity` and 12 GB of memory.

With --bf16 our own UNets in bfloat16 are compared with themselves in float32, weights being those
of random_prior.py; exit code 1 if the error exceeds 2e-2 or anything is not finite.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.cli import flags, validate
from dsd_jax.models import clip_vision, keys
from dsd_jax.models.architectures import ARCHITECTURES, CLIP_VISION_L, UNET_ZERO123, random_params
from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.config import ClipTextConfig, ClipVisionConfig, UNetConfig, VAEConfig
from dsd_jax.models.networks import count, unet_param_shapes, vae_param_shapes
from dsd_jax.models.tensor_files import read_params
from dsd_jax.models.unet import UNet
from dsd_jax.models.vae import AutoencoderKL

FLOAT32_BOUND, BF16_BOUND = 1e-4, 2e-2
TOKENS = 77


class Case(NamedTuple):
    """One network on both sides.

    Attributes:
        theirs: makes the PyTorch module, and the function of the inputs that it computes.
        ours: (params, *inputs) -> output.
        shapes, prefix: of our parameters, and what precedes their names in PyTorch.
        inputs: NumPy arrays; images and latents NHWC.
    """

    theirs: Callable[[], tuple[Any, Callable]]
    ours: Callable
    shapes: dict
    prefix: str
    inputs: tuple[np.ndarray, ...]


def unet(config: dict) -> Case:
    """The noise prediction for two latents of the size trained on, 77 tokens of text each."""
    module, side = UNet(UNetConfig.from_dict(config)), config["sample_size"]
    x = normal(0, 2, side, side, config["in_channels"])
    inputs = (x, np.array([3, 801]), normal(1, 2, TOKENS, config["cross_attention_dim"]))

    def theirs():
        model = import_module("diffusers").UNet2DConditionModel(**config)
        return model, lambda x, t, text: nhwc(model(nchw(x), tensor(t), tensor(text)).sample)

    return Case(theirs, applied(module), unet_param_shapes(module), "", inputs)


def vae(config: dict, method: str) -> Case:
    """Mean and log variance of a picture (`method` "encode"), or the picture of a latent."""
    module, side = AutoencoderKL(VAEConfig.from_dict(config)), config["sample_size"]
    h, channels = side // module.config.factor, config["latent_channels"]
    encode = method == "encode"
    x = np.tanh(normal(0, 1, side, side, 3)) if encode else normal(0, 1, h, h, channels)

    def theirs():
        model = import_module("diffusers").AutoencoderKL(**config)
        if not encode:
            return model, lambda z: nhwc(model.decode(nchw(z)).sample)

        def moments(x):
            posterior = model.encode(nchw(x)).latent_dist
            return np.concatenate([nhwc(posterior.mean), nhwc(posterior.logvar)], -1)

        return model, moments

    def ours(params, x):
        found: Any = module.apply({"params": params}, x, method=method)
        return jnp.concatenate(found, -1) if encode else found

    return Case(theirs, ours, vae_param_shapes(module), "", (x,))


def clip_text(config: dict) -> Case:
    """The last hidden states of two prompts of random tokens."""
    module = ClipText(ClipTextConfig.from_dict(config))
    ids = np.random.default_rng(0).integers(0, config["vocab_size"], (2, TOKENS))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(ids))["params"]

    def theirs():
        library = import_module("transformers")
        model = library.CLIPTextModel(library.CLIPTextConfig(**config))
        return model, lambda ids: model(tensor(ids))[0].numpy()

    return Case(theirs, applied(module), shapes, "text_model.", (ids,))


def clip_image(config: dict) -> Case:
    """The image embeddings of two normalised pictures."""
    module, side = clip_vision.ClipVision(ClipVisionConfig.from_dict(config)), config["image_size"]

    def theirs():
        library = import_module("transformers")
        model = library.CLIPVisionModelWithProjection(library.CLIPVisionConfig(**config))
        return model, lambda x: model(pixel_values=nchw(x)).image_embeds.numpy()

    shapes, images = clip_vision.param_shapes(module), normal(0, 2, side, side, 3)
    return Case(theirs, applied(module), shapes, "", (images,))


_15, _21 = ARCHITECTURES["sd15"], ARCHITECTURES["sd21-base"]
UNETS = {"unet-sd15": _15.unet, "unet-sd21-base": _21.unet, "unet-zero123": UNET_ZERO123}
CASES: dict[str, Callable[[], Case]] = {
    **{name: partial(unet, config) for name, config in UNETS.items()},
    "vae-encoder": partial(vae, _21.vae, "encode"),
    "vae-decoder": partial(vae, _21.vae, "decode"),
    "clip-text-l": partial(clip_text, _15.text_encoder),
    "clip-text-h": partial(clip_text, _21.text_encoder),
    "clip-vision-l": partial(clip_image, CLIP_VISION_L),
}


@dataclass(frozen=True)
class Args:
    """Compare the networks at their published sizes."""

    only: tuple[str, ...] = ()
    """Which ones (default: all; with --bf16 unet-sd21-base)."""
    bf16: bool = False
    """Our UNets in bfloat16 against float32, without PyTorch."""
    out: Path | None = None
    """Where the table goes too: a .md or .json file."""


def main(argv: list[str] | None = None) -> int:
    """Parse, check, compare one by one; returns the exit code."""
    try:
        args = flags.cli(Args, argv, __doc__)
        names = args.only or (("unet-sd21-base",) if args.bf16 else tuple(CASES))
        for name in names:
            validate.choice("only", name, UNETS if args.bf16 else CASES)
        if args.out and args.out.suffix not in (".md", ".json"):
            raise ValueError(f"--out {args.out} has to end in .md or .json")
        for name in () if args.bf16 else ("torch", "diffusers", "transformers"):
            if find_spec(name) is None:
                raise ImportError(
                    f"{name} is not installed: pip install '.[parity]' or pass --bf16"
                )
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    rows = []
    for name in names:
        rows += compare_bf16(name, UNETS[name]) if args.bf16 else [in_a_process(name)]
        print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(markdown(rows))
    if args.out:
        args.out.write_text(markdown(rows) if args.out.suffix == ".md" else json.dumps(rows))
    return int(not all(row["passed"] for row in rows))


def in_a_process(name: str) -> dict:
    """`compare` in a process of its own, whose memory is free again afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(compare, name, CASES[name]).result()


def compare(name: str, make_case: Callable[[], Case]) -> dict:
    """A row of the table: our output and PyTorch's under the same weights, in float32."""
    case, began = make_case(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        expected, parameters = run_torch(case, file)
        where = keys.flatten(case.shapes, case.prefix)
        params = read_params(file, where, lambda stored: {keys.modern(k): k for k in stored}, "f4")
        found = jax.jit(case.ours)(params, *case.inputs)
    error = relative(found, expected)
    return {
        "network": name,
        "inputs": " ".join(str(list(x.shape)) for x in case.inputs),
        "parameters": count(params),
        "parameters (PyTorch)": parameters,
        "relative error": error,
        "seconds": round(time.monotonic() - began),
        "passed": error < FLOAT32_BOUND and count(params) == parameters,
    }


def run_torch(case: Case, file: Path) -> tuple[np.ndarray, int]:
    """PyTorch's output and number of parameters; its weights go to `file`."""
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_model

    torch.manual_seed(0)
    with torch.no_grad():
        module, call = case.theirs()
        for parameter in module.eval().parameters():
            if parameter.numel() == 1 or parameter.std() == 0:
                parameter += 0.1 * torch.randn_like(parameter)
        expected = call(*case.inputs)
        save_model(module, str(file))
    return expected, sum(p.numel() for p in module.parameters())


def compare_bf16(name: str, config: dict) -> list[dict]:
    """Rows of the table for t = 1 and t = 999; weights and computation are bfloat16 or float32."""
    case, began, rows = unet(config), time.monotonic(), []
    weights = jax.device_put(random_params(case.shapes))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights)
    x, _, text = case.inputs
    module = UNet(UNetConfig.from_dict(config), jnp.dtype(jnp.bfloat16))
    exact, rounded = jax.jit(case.ours), jax.jit(applied(module))
    for t in (1, 999):
        inputs = x, jnp.full(len(x), t), text
        with jax.default_matmul_precision("highest"):
            expected = exact(weights, *inputs)
        found = rounded(half, *inputs)
        error, finite = relative(found, expected), bool(jnp.isfinite(found).all())
        row = {
            "network": f"{name}, t = {t}, {jax.devices()[0].device_kind}",
            "parameters": count(weights),
            "type": str(found.dtype),
            "finite": finite,
            "eps": float(jnp.std(expected)),
            "relative error": error,
            "seconds": round(time.monotonic() - began),
            "passed": finite and error < BF16_BOUND,
        }
        rows.append(row)
    return rows


def markdown(rows: list[dict]) -> str:
    """A Markdown table, one line a row."""

    def text(value):
        kinds = {float: ".2g", int: ",d"}
        return format(value, kinds[type(value)]) if type(value) in kinds else str(value)

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([text(v) for v in r.values()] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def relative(found, expected) -> float:
    """L2 norm of the difference, as a part of the expected one."""
    expected = np.asarray(expected, np.float64)
    return float(
        np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)
    )


def applied(module) -> Callable:
    """(params, *inputs) -> output of a Flax module."""
    return lambda params, *inputs: module.apply({"params": params}, *inputs)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def tensor(array: np.ndarray):
    """A PyTorch tensor."""
    return import_module("torch").from_numpy(np.ascontiguousarray(array))


def nchw(array: np.ndarray):
    """NHWC -> a PyTorch tensor NCHW."""
    return tensor(np.moveaxis(array, -1, 1))


def nhwc(tensor) -> np.ndarray:
    """A PyTorch tensor NCHW -> NHWC."""
    return np.moveaxis(tensor.numpy(), 1, -1)


if __name__ == "__main__":
    sys.exit(main())
