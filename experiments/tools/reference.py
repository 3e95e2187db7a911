"""The API reference, from the docstrings, as pages for the browser: build/reference/index.html.

    python experiments/tools/reference.py

By pdoc (extra `test`). A warning, a module that cannot be imported or a link that leads nowhere is
an error. It takes a minute.
"""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import dsd_jax
from dsd_jax.cli import flags


@dataclass(frozen=True)
class Args:
    """Write the reference and check it."""

    out: Path = Path("build/reference")
    """Folder of the pages."""


class Page(HTMLParser):
    """The links of a page, and what of it can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))


def open_up(package: ModuleType) -> None:
    """Set what pdoc would not find: names that load when used, modules that `__all__` leaves out.

    In all packages below, too.
    """
    modules = [found for found in pkgutil.iter_modules(package.__path__) if found.name[0] != "_"]
    for found in modules:
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        if found.ispkg:
            open_up(module)
    if (public := vars(package).get("__all__")) is not None:
        for name in public:
            setattr(package, name, getattr(package, name))
        vars(package)["__all__"] = list(dict.fromkeys([*public, *(m.name for m in modules)]))


def broken_links(folder: Path) -> Iterator[str]:
    """ "page.html: other.html#name" for each link within the folder that leads nowhere."""
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if "://" in target or target.startswith("mailto:"):
                continue
            other = pages.get((path.parent / target).resolve() if target else path)
            if other is None or anchor not in {"", *other.anchors}:
                yield f"{path.relative_to(folder.resolve())}: {link}"


def main(argv: list[str] | None = None) -> int:
    """Write the pages; returns the exit code."""
    args = flags.cli(Args, argv, __doc__)
    import pdoc  # pyright: ignore[reportMissingImports]

    warnings.simplefilter("error", UserWarning)
    pdoc.render.configure(docformat="google", search=True)
    open_up(dsd_jax)
    pdoc.pdoc("dsd_jax", "!dsd_jax.__main__", output_directory=args.out)
    broken = list(broken_links(args.out))
    for line in broken:
        print(f"error: {line} leads nowhere", file=sys.stderr)
    print(args.out / "index.html")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
