"""Variables of the environment that make no sense: those of the terminal, and those of JAX."""

import importlib
import os
import shutil

# Columns in which help can be set; beyond, lines would be filled up with spaces without bound.
NARROWEST, WIDEST = 40, 1000


def mend_terminal() -> None:
    """Give COLUMNS and LINES up where they are none, and keep the width within what can be set."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
            del os.environ[name]
    width = shutil.get_terminal_size().columns
    if not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))


def misread() -> str:
    """One line for the user where JAX cannot take what a variable says; "" where all is well."""
    try:
        importlib.import_module("jax")
    except ValueError as error:
        said, given = str(error), os.environ
        named = [name for name in given if len(name) > 3 and name in said.upper()]
        named = named or [k for k, v in given.items() if k.startswith("JAX") and repr(v) in said]
        if not named:
            raise
        blamed = " or ".join(f"{name}={given[name]}" for name in named)
        return f"JAX takes no {blamed}; leave it out, or see JAX's documentation"
    return ""
