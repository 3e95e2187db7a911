"""The flags that all programs share which make 3D objects of seeds, whatever says what to make."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import tyro

from dsd_jax.cli import flags, validate
from dsd_jax.cli.flags import RARE
from dsd_jax.distillation import METHODS
from dsd_jax.engine import hosts
from dsd_jax.engine.plan import Devices
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.viewer import PORT, check_port
from dsd_jax.files import elided
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.presets import PRESETS
from dsd_jax.recipe.recipe import Recipe, changed, method_name, with_method

Args = TypeVar("Args")


@dataclass(frozen=True)
class DeviceArgs:
    """Large priors and several hosts."""

    max_memory_gb: float = 0.0
    """Memory that the run may use on one device, or, on a CPU, in all, in 1e9 bytes; 0 asks the
    device."""
    shard_prior: int = 0
    """How many devices share one copy of the prior's weights; 0 takes the fewest that suffice."""
    distributed: bool = False
    """Run with other processes, each started by this command: on the hosts of a TPU pod slice, as
    tasks of a Slurm job, or elsewhere with the next three flags."""
    coordinator: str = ""
    """HOST:PORT of process 0, which all can reach."""
    process_id: str = ""
    """Which of them this process is, from 0 on."""
    processes: str = ""
    """How many there are."""


@dataclass(frozen=True)
class RunArgs:
    """How the objects are made."""

    seeds: str = "0:4"
    """0:16, 0:16:2, 3 or 1,5,9. The same seed gives the same object."""
    preset: str = ""
    """draft, quick, standard, best or authors; left out, quick on a CPU, else standard."""
    steps: int = 0
    """Optimisation steps."""
    method: str = "dsd"
    """Distillation: sds, csd, nfsd, ism, vsd, asd, sim, sdi, fsd, cfd or dsd."""
    guidance_scale: float = 0.0
    """How strictly the prompt is followed."""
    refine: bool = True
    """After the steps, make objects as clean as the prior's own pictures, where the preset does so:
    all but authors (--rounds 6 for that)."""
    prior: str = "toybox"
    """toybox, for a picture toybox-1to3, a folder or hub id in diffusers layout, or a
    latent-diffusion .safetensors file."""
    pose: Literal["distance", "elevation"] | None = None
    """What a prior of the Zero-1-to-3 family is told, where its files do not say it: distance for
    Zero-1-to-3 and Zero123-XL, elevation for Stable Zero123."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the prior's networks; left out, float32 on a CPU and bfloat16 on an accelerator."""
    devices: int = 0
    """How many devices (of each process) to use; 0 takes all. On a CPU, how many to make of it, at
    most 8."""
    out: Path = Path("runs")
    """Where the run's folder goes; or the folder of a run, to go on with just that one."""
    resume: bool = True
    """Go on from the checkpoints that the same command left; else start afresh."""
    checkpoint_minutes: float = 5.0
    """How often a checkpoint is written, beside those on SIGTERM, Ctrl-C and at the end."""
    mesh: bool = True
    """Write each object as mesh.glb, too; export_mesh.py does it later."""
    viewer: bool = False
    """Show the objects in the browser while they grow; view.py shows them later."""
    port: Annotated[int, RARE] = PORT
    """Where the browser finds the viewer: http://localhost:PORT."""
    wandb: Annotated[bool, RARE] = False
    """Log to Weights & Biases, too."""
    profile: Annotated[Path | None, RARE] = None
    """Folder for a trace of a few compiled steps, which ui.perfetto.dev and TensorBoard open."""
    on: Annotated[tyro.conf.OmitArgPrefixes[DeviceArgs], RARE] = field(default_factory=DeviceArgs)


def defaults(
    argv: Sequence[str], presets: Mapping[str, Recipe] = PRESETS, prior: str = "toybox"
) -> tuple[RunArgs, Recipe]:
    """What a command line starts from: its preset, or the one that suits the device; its method."""
    preset = flags.flag_value(argv, "preset")
    if preset is None:
        preset = "quick" if jax.default_backend() == "cpu" else "standard"
    validate.choice("preset", preset, presets)
    recipe = presets[preset]
    method = flags.flag_value(argv, "method") or method_name(recipe.method)
    validate.choice("method", method, METHODS)
    recipe = with_method(recipe, method)
    run = RunArgs(
        preset=preset, steps=recipe.steps, method=method_name(recipe.method), prior=prior,
        guidance_scale=recipe.method.guidance_scale,
    )  # fmt: skip
    return run, recipe


def parse(
    kind: type[Args], argv: Sequence[str], description: str, default: Args, recipe: Recipe
) -> tuple[Args, Recipe]:
    """`flags.parse` for a program whose field `run` is `RunArgs`, which the recipe then obeys."""
    args, found = flags.parse(kind, argv, description, default, recipe)
    run: RunArgs = args.run  # pyright: ignore[reportAttributeAccessIssue]
    values: dict[str, Any] = {"steps": run.steps}
    if not run.refine:
        if found.refine != recipe.refine:
            raise ValueError("--no-refine leaves out what --refine.* asks for; give one of them")
        values["rounds"] = 0
    if run.guidance_scale != recipe.method.guidance_scale:
        values["guidance_scale"] = run.guidance_scale
    return args, changed(found, **values)


def check_args(args: RunArgs) -> list[int]:
    """The seeds. Raises ValueError, with one line for the user, for what cannot work."""
    seeds = parse_seeds(args.seeds)
    validate.minutes(args.checkpoint_minutes)
    validate.writable(args.out)
    if args.profile:
        validate.writable(args.profile, "--profile")
    if args.viewer:
        validate.extra("viser", "--viewer", "viewer")
        check_port(args.port)
    if args.wandb:
        validate.extra("wandb", "--wandb")
    return seeds


def devices(args: RunArgs) -> Devices:
    """What may be used of the devices."""
    return Devices(args.devices, args.on.max_memory_gb, args.on.shard_prior)


def load(args: RunArgs) -> Any:
    """The prior. Raises as `priors.load_prior`."""
    with hosts.loading_place(args.on.shard_prior):
        return load_prior(args.prior, jnp.dtype(choose_precision(args.precision)), pose=args.pose)


def warn(lines: Sequence[str]) -> None:
    """Say what a user should know before the run, each line once."""
    for line in dict.fromkeys(lines):
        print(f"warning: {elided(line)}", file=sys.stderr)


def start_if_asked(argv: Sequence[str]) -> None:
    """`hosts.start` with what a command line says, if it says --distributed."""
    names = ("coordinator", "process-id", "processes")
    given = [flags.flag_value(argv, name) or "" for name in names]
    if "--distributed" in argv:
        hosts.start(*given)
    elif any(given):
        raise ValueError(f"{hosts.FLAGS} need --distributed besides")
