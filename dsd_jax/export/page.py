"""Pages for the browser, of the parts in dsd_jax/assets/gallery: one style for all.

filled("overview.html", FACTS="3 runs", ROWS="<section>...")
"""

import base64
import importlib.resources
import re

_SHARED = {"STYLE": "style.css", "SCRIPT": "script.js", "THEME": "theme.js"}


def filled(template: str, **parts: str) -> str:
    """A template with its parts in the places that it names: /*FACTS*/.

    Args:
        parts: as markup; style and scripts need not be given.

    Raises KeyError where a part is missing.
    """
    parts = {name: asset(file).decode() for name, file in _SHARED.items()} | parts
    return re.sub(r"/\*([A-Z]+)\*/", lambda found: parts[found[1]], asset(template).decode())


def asset(name: str) -> bytes:
    """A file of dsd_jax/assets/gallery."""
    return (importlib.resources.files("dsd_jax") / "assets" / "gallery" / name).read_bytes()


def base64_of(data: bytes) -> str:
    """Bytes as text in a page or script."""
    return base64.b64encode(data).decode("ascii")
