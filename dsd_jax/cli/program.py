"""The programs: `python experiments/text3d.py ...` in a clone, `dsd text3d ...` once installed."""

import importlib
import os
import sys
from collections.abc import Sequence

from dsd_jax.cli import environment
from dsd_jax.files import elided

# Name at the command line -> (module of this package, what it does).
PROGRAMS: dict[str, tuple[str, str]] = {
    "text3d": ("text3d", "objects of a prompt, a different one for every seed"),
    "single-view": ("single_view", "objects that a picture shows from one side"),
    "app": ("app", "a page on which to grow objects, in the browser"),
    "image2d": ("image2d", "pictures of a prompt, by the same methods"),
    "view": ("view", "look at finished objects in the browser"),
    "export-mesh": ("export_mesh", "meshes of a finished run: GLB, OBJ, PLY"),
    "export-splats": ("export_splats", "Gaussian splats of a finished run"),
    "export-gallery": ("export_gallery", "the page of a finished run, also as one file"),
    "compare": ("compare", "the methods side by side, with scores"),
    "ablate": ("ablate", "one change of the recipe at a time"),
    "mixture": ("mixture", "the methods on a prior that is known exactly"),
    "evaluate-novel-views": ("evaluate_novel_views", "single view on objects that are known"),
    "train-prior": ("train_prior", "train a prior like Toybox on your own objects"),
    "words": ("words", "what Toybox has seen: its categories"),
}
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def start(module: str, argv: Sequence[str] | None = None) -> int:
    """Run a program of `dsd_jax.cli` by the name of its module; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    environment.mend_terminal()
    if said := environment.misread():
        return refuse(said)
    from dsd_jax.cli import validate

    validate.set_up_jax(argv)
    try:
        code = importlib.import_module(f"dsd_jax.cli.{module}").main(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read has had enough, as `dsd words | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except (AssertionError, RuntimeError):
        said = validate.no_device()
        if not said:
            raise
        return refuse(said)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `dsd`: the first word names the program; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name = argv[0].replace("_", "-")
    if argv[0] == "--version":
        import dsd_jax

        print(f"dsd_jax {dsd_jax.__version__}")
        return 0
    if name not in PROGRAMS:
        if said := environment.misread():
            return refuse(said)
        from dsd_jax.cli.validate import nearest

        close = nearest(name, list(PROGRAMS))
        return refuse(f"dsd {argv[0]}: no such program{close}; dsd --help")
    sys.argv[0] = f"dsd {name}"
    return start(PROGRAMS[name][0], argv[1:])


def refuse(error: Exception | str, code: int = BAD_INPUT) -> int:
    """Say in one line what is wrong; returns the exit code."""
    print(f"error: {elided(error)}", file=sys.stderr)
    return code


def usage() -> str:
    """What `dsd --help` prints."""
    rows = "\n".join(f"  {name:22}{what}" for name, (_, what) in PROGRAMS.items())
    return f"usage: dsd PROGRAM [flags]\n\n{rows}\n\ndsd PROGRAM --help says more."
