"""The same work of the networks in PyTorch with diffusers' models, to be run in its own process.

Eager as a library's user runs it, in channels-last layout, and on a GPU also as a replayed CUDA
graph, where nothing is spent on launches.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from .clock import Care, Time, clock

# Entries of a config.json that are ours alone.
_OURS = ("camera_dim",)


class Job(NamedTuple):
    """A row of bench.py's table for PyTorch.

    Attributes:
        kind: "matrix", "copy", "unet", "vae forward" or "vae backward".
        size: side of the matrices, numbers copied, or the batch.
        config: the dictionary of the network's config.json.
        tokens: length of the text.
    """

    model: str
    work: str
    label: str
    kind: str
    size: int
    config: dict[str, Any] | None = None
    tokens: int = 0


def jobs(model: str, config: tuple[dict, dict, int], sizes, names) -> list[Job]:
    """The rows of a model's networks, labelled as bench.py's.

    Args:
        config: of the UNet and of the autoencoder, and the length of the text.
        sizes: `menu.Sizes`.
        names: those of "unet" and "vae" that are wanted.
    """
    unet, vae, tokens = config
    found = []
    if "unet" in names:
        found += [
            Job(model, "unet forward", f"batch {b}", "unet", b, unet, tokens)
            for b in sizes.unet[model]
        ]
    if "vae" in names:
        found += [
            Job(model, f"vae encoder {work}", f"batch {b}", kind, b, vae)
            for b in sizes.vae[model]
            for work, kind in (("forward", "vae forward"), ("forward + backward", "vae backward"))
        ]
    return found  # fmt: skip


def ceilings(sizes) -> list[Job]:
    """The rows of the matrix product and the copy."""
    return [Job("", "matrix product", "", "matrix", sizes.matrix),
            Job("", "copy", "", "copy", sizes.copied)]  # fmt: skip


def run(
    on_gpu: list[Job], on_cpu: list[Job], precision: str | None, care: Care
) -> list[tuple[Job, str, Time]]:
    """(job, how it was run, time) of the jobs for what there is; those that fail are left out.

    precision: float32 or bfloat16 (None: bfloat16 on a GPU).
    """
    torch: Any = import_module("torch")
    gpu = torch.cuda.is_available()
    dtype = getattr(torch, precision or ("bfloat16" if gpu else "float32"))
    place = {"device": "cuda" if gpu else "cpu", "dtype": dtype}
    wait = _wait(torch, gpu)
    found = []
    for job in on_gpu if gpu else on_cpu:
        try:
            call = _CALLS[job.kind](torch, job, place)
            found.append((job, "pytorch eager", clock(call, wait, 1, care)))
            if gpu:
                found.append((job, "pytorch graph", clock(_captured(torch, call), wait, 1, care)))
        except RuntimeError as error:  # out of memory, or cannot be captured
            reason = str(error).splitlines()[0]
            print(f"skipped: pytorch, {job.model}, {job.work}, {job.label}, {reason}",
                  file=sys.stderr)  # fmt: skip
            torch.cuda.empty_cache()
    return found


def _wait(torch, gpu: bool) -> Callable[[Any], Any]:
    return (lambda _: torch.cuda.synchronize()) if gpu else (lambda _: None)


def _captured(torch, call: Callable[[], Any]) -> Callable[[], None]:
    """A CUDA graph of the call."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _matrix(torch, job: Job, place: dict) -> Callable[[], Any]:
    x, y = (torch.randn(job.size, job.size, **place) for _ in range(2))
    return lambda: x @ y


def _copy(torch, job: Job, place: dict) -> Callable[[], Any]:
    x = torch.randn(job.size, device=place["device"])
    return lambda: -x


def _network(torch, name: str, job: Job, place: dict):
    config = {
        k: v for k, v in (job.config or {}).items() if k not in _OURS and not k.startswith("_")
    }
    model = getattr(import_module("diffusers"), name)(**config)
    model = model.to(**place, memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)


def _unet(torch, job: Job, place: dict) -> Callable[[], Any]:
    model = _network(torch, "UNet2DConditionModel", job, place)
    config, side = model.config, model.config.sample_size
    x = torch.randn(job.size, config.in_channels, side, side, **place)
    x = x.contiguous(memory_format=torch.channels_last)
    text = torch.randn(job.size, job.tokens, config.cross_attention_dim, **place)
    t = torch.full((job.size,), 500, device=place["device"])

    def call():
        with torch.no_grad():
            return model(x, t, text).sample

    return call


def _vae(torch, job: Job, place: dict, pulled: bool) -> Callable[[], Any]:
    model = _network(torch, "AutoencoderKL", job, place)
    side = model.config.sample_size
    x = torch.randn(job.size, 3, side, side, **place).tanh()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(pulled)
    with torch.no_grad():
        cotangent = torch.randn_like(model.encode(x).latent_dist.mean)

    def call():
        with torch.set_grad_enabled(pulled):
            mean = model.encode(x).latent_dist.mean
            return torch.autograd.grad(mean, x, cotangent) if pulled else mean

    return call


_CALLS: dict[str, Callable[[Any, Job, dict], Callable[[], Any]]] = {
    "matrix": _matrix,
    "copy": _copy,
    "unet": _unet,
    "vae forward": lambda torch, job, place: _vae(torch, job, place, False),
    "vae backward": lambda torch, job, place: _vae(torch, job, place, True),
}
