"""Checks of what a user typed, before anything is compiled or written.

Each raises a ValueError that says in one line what is wrong and how to mend it.
"""

import difflib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from dsd_jax.checks import is_finite
from dsd_jax.cli import flags
from dsd_jax.engine import host_memory, programs
from dsd_jax.export.run_folder import read_config, run_folder
from dsd_jax.files import (
    OLD_SECONDS,
    Damaged,
    plain,
    read_json,
    shortened,
    sweep,
    write_json,
)
from dsd_jax.schedule import MAX_TIMESTEPS

# jaxlib versions that compile float32 scatter-add on GPU to a slow loop.
_SLOW_SCATTER = ((0, 10, 2), (0, 11, 0))
MAX_CPU_DEVICES = 8


def prompt(text: str) -> None:
    """Refuse a prompt without words."""
    if not text.strip():
        raise ValueError('--prompt is empty; say what to make, for instance --prompt "a house"')


def choice(flag: str, name: str, valid: Iterable[str]) -> None:
    """Refuse a name that is not among the valid ones, and offer the nearest."""
    valid = sorted(valid)
    if name not in valid:
        known = ", ".join(valid) if len(valid) <= 30 else f"the {len(valid)} that there are"
        raise ValueError(f"--{flag} {name!r} is not one of {known}{nearest(name, valid)}")


def listed(flag: str, text: str) -> list[str]:
    """The names of a list such as sds,dsd. Refuses one that names nothing, or something twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"--{flag} {text!r} names nothing")
    once(flag, names)
    return names


def once(flag: str, names: Sequence[str], told: Callable[[str], str] = str) -> None:
    """Refuse a list in which something comes twice; `told` is how the line says it."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"--{flag}: {shortened(told(name), 120)} comes twice")
        seen.add(name)


def positive(flag: str, value: float) -> None:
    """Refuse a number that is not above 0, or not finite."""
    if not (value > 0 and is_finite(value)):
        raise ValueError(f"--{flag} must be a positive, finite number, not {value}")


def ddim_steps(value: int) -> None:
    """Refuse a number of grid points that is none of an ODE."""
    if not 2 <= value <= MAX_TIMESTEPS:
        raise ValueError(f"--ddim-steps must be from 2 to {MAX_TIMESTEPS}, not {value}")


def view(azimuth_deg: float, elevation_deg: float) -> None:
    """Refuse angles from which nothing can be seen."""
    if not (is_finite(azimuth_deg) and -90 <= elevation_deg <= 90):
        raise ValueError(
            "--azimuth-deg must be a finite number and --elevation-deg lie in -90..90, not "
            f"{azimuth_deg:g} and {elevation_deg:g}"
        )


def nearest(name: str, valid: Sequence[str]) -> str:
    """ "; did you mean ...?" where a valid name resembles this one or begins it, else nothing."""
    name = name.lower()
    close = difflib.get_close_matches(name, valid, n=1)
    close = close or [known for known in valid if known and name.startswith(known)]
    return f"; did you mean {close[0]}?" if close else ""


def extra(package: str, asked_by: str, name: str = "") -> None:
    """Refuse what needs a package that is not installed.

    Args:
        name: of the extra that brings it, the package's own where left out.
    """
    try:
        importlib.import_module(package)
    except ImportError:
        raise ValueError(
            f'{asked_by} needs {package}: pip install "dsd_jax[{name or package}]"'
        ) from None


def minutes(value: float) -> None:
    """Refuse an interval of checkpoints that is none."""
    if not value >= 0:
        raise ValueError(f"--checkpoint-minutes must be a number from 0 on, not {value}")


def folder_of(out: Path, title: str, config: dict[str, Any]) -> Path:
    """The folder of a run: `out` where that holds a run itself, else one in it by title and hash.

    Raises ValueError where it holds a run of another configuration, and says what differs, or one
    whose config.json is damaged.
    """
    own, given = run_folder(out, title, config), out
    for folder in (given, own):
        try:
            before = read_config(folder)
        except FileNotFoundError:
            continue
        except ValueError as error:
            said = error.said if isinstance(error, Damaged) else error
            if folder == given:
                raise ValueError(f"{said}; give another --out") from None
            print(f"warning: {said}; it is written anew", file=sys.stderr)
            continue
        if folder == given and "seeds" not in before:
            continue
        if before.get("version") != config["version"]:
            raise ValueError(
                f"{folder} was written by dsd_jax {before.get('version')}, and this is "
                f"{config['version']}, which makes other objects; give another --out"
            )
        before.pop("given", None)  # where its files were
        differences = _differences(before, plain(config))
        if differences:
            raise ValueError(
                f"{folder} holds a run with {_some(differences)}; "
                "give the same flags, or another --out"
            )
        return folder
    return own


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """ "--steps 12, not 24" for each value that differs between two configurations."""
    if isinstance(before, dict) and isinstance(now, dict):
        if name == "method" and before.get("name") != now.get("name"):
            return []  # --method says so
        names = dict.fromkeys([*now, *before])
        inside = "" if name in ("", "recipe", "settings") else f"{name}."
        return [d for k in names for d in _differences(before.get(k), now.get(k), inside + k)]
    return [] if before == now else [f"--{name.replace('_', '-')} {before!r}, not {now!r}"]


def _some(differences: list[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    return ", ".join(differences[:3]) + more


def remember(folder: Path, config: dict[str, Any]) -> None:
    """Write `folder`/config.json, or refuse a folder that holds results of another configuration.

    For programs that add results to a folder, call after call; says what differs.
    """
    file, given = folder / "config.json", plain(config)
    if file.is_file():
        try:
            before = read_json(file)
        except Damaged as error:
            raise ValueError(f"{error.said}; choose another --out") from None
        differences = _differences(before, given)
        if differences:
            raise ValueError(
                f"{folder} holds results with {_some(differences)}; "
                "give the same flags, or choose another --out"
            )
    sweep(folder, OLD_SECONDS)
    write_json(file, given)


def writable(folder: Path, flag: str = "--out") -> None:
    """Refuse a folder in which nothing can be made, without making anything."""
    existing = folder.absolute()
    try:
        existing = next(p for p in (existing, *existing.parents) if p.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"{flag} {folder} cannot be written: {existing}: {error.strerror}; choose another "
            "folder"
        ) from None


def local_files(flag: str, *files: Path | None) -> None:
    """Refuse paths that cannot be those of files, where a reader would not say why; None passes."""
    for file in files:
        if file == Path():
            raise ValueError(f"--{flag} is empty, or the folder at hand; give a file")
        if file and file.parts[0].lower() in ("http:", "https:", "ftp:"):
            raise ValueError(f"--{flag} is a URL; download it first, and give the file")


def make_folder(folder: Path) -> None:
    """Make the run's folder, the first thing that is written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made: {error.strerror}; see --out") from None


def no_device() -> str:
    """One line for the user where JAX finds no device of the kind that it was told to use."""
    names = ("jax_platform_name", "jax_platforms")
    for name in [name for name in names if jax.config.values[name]] or names[1:]:
        asked = jax.config.values[name] or ""
        try:
            for platform in asked.split(","):  # of several, those before one that fails are kept
                jax.devices(platform or None)
        except (AssertionError, RuntimeError):
            return f"{name.upper()}={asked}: there is no such device; leave it out, or say cpu"
    return ""


def device_warnings() -> list[str]:
    """What a user should know of the installed JAX."""
    slow = slow_scatter(jax.default_backend(), jax.lib.__version__)
    return [slow] if slow else []


def slow_scatter(backend: str, version: str) -> str | None:
    """A warning where this jaxlib makes hash grids slow on a GPU."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if backend != "gpu" or not _SLOW_SCATTER[0] <= numbers <= _SLOW_SCATTER[1]:
        return None
    return f"jaxlib {version} is slow on hash grids; pip install -U jax to 0.11.1 or later"


def set_up_jax(argv: Sequence[str] = ()) -> None:
    """Settings of a program, to be made before JAX is first used.

    Compiled programs, short ones too, are kept in the user's cache folder, unless JAX was told
    where (JAX_COMPILATION_CACHE_DIR); where nothing can be written there, nothing is kept. See also
    `engine.programs`. Without an accelerator each core is a device, so that seeds run side by side;
    or there are as many as `--devices` in `argv` says.
    """
    host_memory.keep_freed()
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        folder = _cache_folder()
        folder = None if _unwritable(folder) else str(folder)
    elif "://" not in folder and (why := _unwritable(Path(folder))):
        where = f"JAX_COMPILATION_CACHE_DIR={folder} cannot be written: {why}"
        print(f"warning: {where}; compiled programs are not kept", file=sys.stderr)
        folder = None
    jax.config.update("jax_compilation_cache_dir", folder)
    programs.keep_in(None if folder is None or "://" in folder else Path(folder) / "programs")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "--xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        wanted = flags.flag_value(argv, "devices") or ""
        devices = (int(wanted) if wanted.isdigit() else 0) or os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", min(devices, MAX_CPU_DEVICES))


def _cache_folder() -> Path:
    """dsd_jax/xla in $XDG_CACHE_HOME, where that is an absolute path, else in ~/.cache."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = given if given.is_absolute() else Path(os.path.expanduser("~/.cache"))
    return cache.absolute() / "dsd_jax" / "xla"


def _unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder, which is made if need be; "" where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
