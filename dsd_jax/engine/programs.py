"""Compiled programs, kept from run to run.

JAX's own cache of compiled programs is asked only after a function was traced and lowered, which
takes longer than the programs of a small prior take to load. Here a program is known by what it is
made from: the function with all that its closures hold, the package's source, the versions and
settings of JAX, the devices, and the shapes of its arguments. Where these cannot be told in full,
nothing is kept, nor on accelerators so far.
"""

import dataclasses
import functools
import hashlib
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dsd_jax
from dsd_jax.engine import host_memory
from dsd_jax.files import atomic_path

# Platforms on which kept programs were tried.
_TRIED = ("cpu",)
# Programs that are kept, the latest used ones.
_MOST_FILES = 100
# More bytes of arrays in closures than this are not read.
_MOST_BYTES = 2**28
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "einops")
_OURS = {"dsd_jax", *_LIBRARIES, "functools", "builtins"}
_kept_in: Path | None = None


def keep_in(folder: str | Path | None) -> None:
    """Programs are kept in this folder from now on; None, as at first: nowhere."""
    global _kept_in
    _kept_in = None if folder is None else Path(folder)


class Program:
    """A jitted function that may be compiled, or loaded, before it is called.

    Attributes:
        function: what is jitted.
        made_from: what it computes comes from, whatever wraps that.
        options: of `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], *made_from: Any, **options: Any):
        self.function, self.made_from, self.options = function, made_from, options
        self._jitted = jax.jit(function, **options)
        self._loaded: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._loaded is not None:
            try:
                return self._loaded(*args)
            except (TypeError, ValueError):  # for other shapes or devices; nothing was run
                self._loaded = None
        return self._jitted(*args)

    def ready(self, pending: list[Callable[[], None]], *args: Any) -> Any:
        """Load the program or, if it is not kept, lower it, and add to `pending` what compiles it.

        Args:
            args: arrays or their shapes, with shardings.

        Returns:
            Shapes of what it gives, which is laid out as its first argument is.
        """
        file = self._file(args)
        out = self._load(file)
        if out is None:
            if file is not None:
                named = _named(self.function, file.stem[:16])
                self._jitted = jax.jit(named, **self.options)
            lowered = self._jitted.lower(*args)
            out = jax.tree.map(_shape, lowered.out_info)
            pending.append(functools.partial(_compile, lowered, out, file))
        sharding = jax.tree.leaves(args)[0].sharding
        return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), out)

    def _load(self, file: Path | None) -> Any:
        if file is None or not file.is_file():
            return None
        from jax.experimental import serialize_executable

        try:
            serialised, out = pickle.loads(file.read_bytes())
            self._loaded = serialize_executable.deserialize_and_load(*serialised)
            os.utime(file)
        except Exception:  # damaged: it is compiled anew
            return None
        return out

    def _file(self, args: Any) -> Path | None:
        """Where the program of these arguments lies; None where nothing is kept."""
        if _kept_in is None or jax.default_backend() not in _TRIED or jax.process_count() > 1:
            return None
        leaves, tree = jax.tree.flatten(args)
        shapes = [(leaf.shape, str(leaf.dtype), str(leaf.sharding)) for leaf in leaves]
        try:
            known = fingerprint((self.made_from, str(tree), shapes, _surroundings()))
        except Unknown:
            return None
        return _kept_in / f"{known}.program"


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _named(function: Callable[..., Any], suffix: str) -> Callable[..., Any]:
    """The function by a name of its own, by which JAX's cache knows it from others."""

    def program(*args):
        return function(*args)

    program.__name__ = f"{getattr(function, '__name__', 'program')}_{suffix}"
    return program


def _compile(lowered: Any, out: Any, file: Path | None) -> None:
    """Compile, and keep what was compiled just now.

    What JAX's cache had kept is not kept again: on a CPU a program that was loaded can be used, but
    what is written of it lacks its code.
    """
    _found.in_cache = False
    compiled = lowered.compile()
    host_memory.give_back()
    _keep(compiled, out, None if _found.in_cache else file)


def _note(event: str, **about: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _found.in_cache = True


# Whether JAX's cache had what this thread compiled last.
_found = threading.local()
jax.monitoring.register_event_listener(_note)


def _keep(compiled: Any, out: Any, file: Path | None) -> None:
    """Write a program, and what it gives; where that fails the next run compiles it again."""
    if file is None:
        return
    from jax.experimental import serialize_executable

    with suppress(Exception):
        blob = pickle.dumps((serialize_executable.serialize(compiled), out))
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            temporary.write_bytes(blob)
        kept = sorted(file.parent.glob("*.program"), key=lambda one: one.stat().st_mtime)
        for old in kept[:-_MOST_FILES]:
            old.unlink(missing_ok=True)


class Unknown(ValueError):
    """Something that cannot be told in full by `fingerprint`."""


def fingerprint(value: Any) -> str:
    """A hash of a value by what it is, not by where it lies: equal ones of two processes are equal.

    Functions are told by their code, what it closes over and their defaults; what they find in
    their modules is taken for granted where the module is this package's, or of a library.

    Raises:
        Unknown: something is of none of the kinds that are known, a function of another module, or
            more than 256 MiB of arrays.
    """
    found, left = hashlib.sha256(), [_MOST_BYTES]
    _tell(value, lambda part: found.update(part), left, ())
    return found.hexdigest()


def _tell(
    value: Any, say: Callable[[bytes], None], left: list[int], above: tuple[int, ...]
) -> None:
    """Say all of a value; `above` are the ids of those that it is part of."""
    if id(value) in above:
        say(b"(itself %d)" % (len(above) - above.index(id(value))))
        return
    tell = functools.partial(_tell, say=say, left=left, above=(*above, id(value)))
    say(f"({type(value).__module__}.{type(value).__qualname__} ".encode())
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | Path | Enum):
        say(repr(value).encode())
    elif isinstance(value, jax.Array | np.ndarray | np.generic):
        _tell_array(value, say, left)
    elif isinstance(value, np.dtype | slice | range | type(...)):
        say(repr(value).encode())
    elif isinstance(value, Mapping):
        for pair in value.items():
            tell(pair)
    elif isinstance(value, set | frozenset):
        tell(sorted(map(repr, value)))
    elif isinstance(value, tuple | list):
        for part in value:
            tell(part)
    elif isinstance(value, functools.partial):
        tell((value.func, value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        tell((value.__func__, value.__self__))
    elif isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        _check_ours(value)
        say(f"{value.__module__}.{value.__qualname__}".encode())
    elif isinstance(value, types.FunctionType):
        _tell_function(value, say, tell)
    else:
        tell(_parts(value))
    say(b")")


def _tell_array(value: Any, say: Callable[[bytes], None], left: list[int]) -> None:
    left[0] -= value.nbytes
    if left[0] < 0 or value.dtype == object:
        raise Unknown("its arrays are not read")
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise Unknown("a key")
    say(f"{value.dtype}{value.shape}".encode())
    say(np.ascontiguousarray(value).tobytes())


def _tell_function(value: Any, say: Callable[[bytes], None], tell: Callable[[Any], None]) -> None:
    _check_ours(value)
    say(f"{value.__module__}.{value.__qualname__}:{value.__code__.co_firstlineno}".encode())
    tell([cell.cell_contents for cell in value.__closure__ or ()])
    tell((value.__defaults__, value.__kwdefaults__))


def _check_ours(value: Any) -> None:
    module = value.__module__ or "builtins"
    if module.partition(".")[0] not in _OURS:
        raise Unknown(f"{module} may change from run to run")


def _parts(value: Any) -> dict[str, Any]:
    """The attributes of an object whose class is ours."""
    _check_ours(type(value))
    if dataclasses.is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
    if getattr(type(value), "__slots__", None) or not hasattr(value, "__dict__"):
        raise Unknown(f"{type(value).__qualname__} does not show its parts")
    return {**vars(value)}


@cache
def _surroundings() -> tuple[Any, ...]:
    """What programs depend on beside what they are made from."""
    source = hashlib.sha256()
    for file in sorted(Path(dsd_jax.__file__).parent.rglob("*.py")):
        source.update(file.read_bytes())
    versions = [getattr(sys.modules.get(name), "__version__", "") for name in _LIBRARIES]
    settings = {k: repr(v) for k, v in sorted(jax.config.values.items()) if "cache" not in k}
    devices = [(one.platform, one.device_kind) for one in jax.devices()]
    runs_on = jax.devices()[0].client.platform_version
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    return source.hexdigest(), versions, settings, devices, runs_on, flags, _processor()


def _processor() -> str:
    """What the processor can do, where the system says: programs are compiled for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
