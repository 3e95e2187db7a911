"""What tests of programs share: programs as modules, a tiny text3d.py, and how it is started."""

import importlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dsd_jax.cli import queue
from dsd_jax.engine import generate, loop, precompile, results
from dsd_jax.export.mesh import MeshSettings

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
TOOLS = EXPERIMENTS / "tools"
# A step a block, so that a run of milliseconds has moments to be cut off at. Of memory the seeds
# alone count, on each device, so that --max-memory-gb makes chunks of few.
_PROGRAM = f"""
import runpy, sys
sys.path.append({str(ROOT / "tests")!r})
from programs import in_miniature
from dsd_jax.engine import loop, memory
loop.BLOCK_SECONDS = 0.0
memory.ON_CPU = memory.ON_CPU._replace(together=False, program=0, refining=0, compiling=0)
del sys.argv[0]
with in_miniature():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
SMALL = [
    "--preset", "quick", "--resolution", "8", "--late-resolution", "8", "--samples", "4",
    "--levels", "2", "--start-levels", "2", "--log2-entries", "8", "--width", "8",
    "--occupancy-resolution", "8", "--turntable-frames", "2", "--turntable-resolution", "16",
    "--preview-resolution", "8", "--final-samples", "4", "--rounds", "0", "--no-mesh",
    "--density-floor", "0",  # in so few steps nothing grows dense enough for a floor
]  # fmt: skip

SMALL_MESH = MeshSettings(faces=400, texture_size=64, view_size=48, samples=16)

# A unet of two levels, for experiments/tools/parity.py.
SMALL_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
}


def load_script(name: str) -> ModuleType:
    """The program `dsd_jax.cli.<name>`, or experiments/tools/<name>.py as a module, run anew."""
    file = TOOLS / f"{name}.py"
    if not file.is_file():
        return importlib.import_module(f"dsd_jax.cli.{name}")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def in_miniature() -> Iterator[None]:
    """Runs of one recipe and prior in this process share what is compiled, and meshes are small."""
    made, make_blocks = {}, generate.make_blocks

    def kept(task, device_mesh, *rest):
        key = (task.recipe, task.prior.folder, device_mesh, *rest)
        if key not in made:
            made[key] = make_blocks(task, device_mesh, *rest)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "make_blocks", kept)
        patch.setattr(queue, "make_blocks", kept)
        patch.setattr(results, "exporting", partial(results.exporting, settings=SMALL_MESH))
        patch.setattr(precompile, "MeshSettings", lambda: SMALL_MESH)
        yield


@contextmanager
def signalled(number: int) -> Iterator[None]:
    """After every block of a run in this process it gets this signal."""
    block = loop.Progress

    def pressing(*values):
        os.kill(os.getpid(), number)
        return block(*values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Progress", pressing)
        yield


def arguments(prior: Path, *flags: object) -> list[str]:
    """A command line of text3d.py in miniature, writing a checkpoint after every step."""
    prompt = [] if "--prompts" in flags else ["--prompt", "a red house"]
    command = [*prompt, "--prior", prior, "--checkpoint-minutes", 0]
    return [*map(str, command), *SMALL, *map(str, flags)]


def start(prior: Path, *flags: object, devices: int = 1) -> subprocess.Popen:
    """text3d.py with these `arguments`, as a process; compiled programs lie in the tests' cache."""
    options = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": f"{options} --xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-c", _PROGRAM, str(EXPERIMENTS / "text3d.py")]
    return subprocess.Popen(
        [*command, *arguments(prior, *flags)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(program: subprocess.Popen, code: int = 0) -> str:
    """Wait for a program that ends with this exit code; returns what it said."""
    said, _ = program.communicate(timeout=600)
    assert program.returncode == code, said
    return said


def wait_for(program: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Look every few milliseconds, until the program has ended."""
    while program.poll() is None and not condition():
        time.sleep(0.005)


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fields(out: Path) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of each seed of the one run in a folder."""
    from safetensors.numpy import load_file

    files = sorted(out.glob("*/seed_*/field.safetensors"))
    return {file.parent.name: load_file(file) for file in files}


def files_of(out: Path) -> dict[str, bytes]:
    """Every seed's files in a folder of one run, but for videos."""
    files = [*out.glob("*/seed_*/field.*"), *out.glob("*/seed_*/views/*"), *out.glob("*/seeds.png")]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}
