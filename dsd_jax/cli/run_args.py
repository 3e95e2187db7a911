"""The flags that all programs share which make 3D objects of seeds, whatever says what to make."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from dsd_jax.cli import validate
from dsd_jax.distillation import METHODS
from dsd_jax.engine import hosts
from dsd_jax.engine.seeds import parse_seeds
from dsd_jax.export.viewer import PORT, check_port
from dsd_jax.priors import choose_precision, load_prior
from dsd_jax.recipe.checks import check
from dsd_jax.recipe.presets import PRESETS, Settings


@dataclass(frozen=True)
class RunArgs:
    """How the objects are made."""

    seeds: str = "0:4"
    """0:16, 0:16:2, 3 or 1,5,9. The same seed gives the same object."""
    method: str = "dsd"
    """Distillation method: sds, csd, nfsd, ism, vsd, asd, sdi, fsd, cfd or dsd."""
    prior: str = "toybox"
    """toybox, for a picture toybox-1to3, a folder or hub id in diffusers layout, or a
    latent-diffusion .safetensors file."""
    preset: str = ""
    """quick, standard or authors; left out, quick on a CPU and standard on an accelerator."""
    out: Path = Path("runs")
    """Where the run's folder goes; or the folder of a run, to go on with just that one."""
    resume: bool = True
    """Go on from the checkpoints that the same command left; else start afresh."""
    checkpoint_minutes: float = 5.0
    """How often a checkpoint is written, beside those on SIGTERM, Ctrl-C and at the end."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Type of the prior's weights and of what its networks compute; left out, float32 on a CPU and
    bfloat16 on an accelerator. All else is float32 always."""
    max_memory_gb: float = 0.0
    """Memory that the run may use on one device, in 1e9 bytes; 0 asks the device."""
    devices: int = 0
    """How many devices (of each process) to use; 0 takes all. On a CPU, how many to make of it."""
    shard_prior: int = 0
    """How many devices share one copy of the prior's weights; 0 takes the fewest that suffice."""
    distributed: bool = False
    """Run with other processes, each started by this command: on the hosts of a TPU pod slice, or
    as the tasks of a Slurm job. Elsewhere the next three flags are needed too."""
    coordinator: str = ""
    """HOST:PORT of process 0, which all can reach."""
    process_id: str = ""
    """Which of them this process is, from 0 on."""
    processes: str = ""
    """How many there are."""
    mesh: bool = True
    """Write each object as mesh.glb, too; export_mesh.py does it later."""
    viewer: bool = False
    """Show the objects in the browser while they grow; view.py shows them later."""
    port: int = PORT
    """Where the browser finds the viewer: http://localhost:PORT."""
    wandb: bool = False
    """Log to Weights & Biases, too."""
    profile: Path | None = None
    """Folder for a trace of a few compiled steps, which ui.perfetto.dev and TensorBoard open."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


def defaults(argv: Sequence[str], presets: Mapping[str, Settings] = PRESETS) -> RunArgs:
    """What a command line starts from: its preset, or the one that suits the device."""
    preset = validate.flag_value(argv, "preset")
    if preset is None:
        preset = "quick" if jax.default_backend() == "cpu" else "standard"
    validate.choice("preset", preset, presets)
    return RunArgs(preset=preset, settings=presets[preset])


def check_args(args: RunArgs) -> list[int]:
    """The seeds. Raises ValueError, with one line for the user, for what cannot work."""
    seeds = parse_seeds(args.seeds)
    validate.choice("method", args.method, METHODS)
    check(args.settings)
    validate.minutes(args.checkpoint_minutes)
    validate.writable(args.out)
    if args.viewer:
        validate.extra("viser", "--viewer", "viewer")
        check_port(args.port)
    if args.wandb:
        validate.extra("wandb", "--wandb")
    return seeds


def device(args: RunArgs) -> tuple[float, int, int]:
    """The arguments of `text_to_3d.make_plan` that say what may be used."""
    return args.max_memory_gb, args.devices, args.shard_prior


def load(args: RunArgs) -> Any:
    """The prior. Raises as `priors.load_prior`."""
    with hosts.loading_place(args.shard_prior):
        return load_prior(args.prior, jnp.dtype(choose_precision(args.precision)))


def warn(lines: Sequence[str]) -> None:
    """Say what a user should know before the run, each line once."""
    for line in dict.fromkeys(lines):
        print(f"warning: {line}", file=sys.stderr)


def start_if_asked(argv: Sequence[str]) -> None:
    """`hosts.start` with what a command line says, if it says --distributed."""
    names = ("coordinator", "process-id", "processes")
    given = [validate.flag_value(argv, name) or "" for name in names]
    if "--distributed" in argv:
        hosts.start(*given)
    elif any(given):
        raise ValueError(f"{hosts.FLAGS} need --distributed besides")
