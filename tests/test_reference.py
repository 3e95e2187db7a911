"""The API reference: what its tool makes of a small package, and which links it finds broken."""

import importlib
import sys

import pytest
from programs import load_script


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a name that loads late, a module that it does not name, and one in a room."""
    files = {
        "__init__.py": (
            "__all__ = ['late']\ndef __getattr__(name):\n"
            "    if name == 'late':\n        return len\n    raise AttributeError(name)\n"
        ),
        "_private.py": "raise ImportError\n",
        "other.py": '"""Other."""\n',
        "room/__init__.py": "__all__ = []\n",
        "room/inner.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / "small_package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small_package" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("small_package")
    for name in [name for name in sys.modules if name.startswith("small_package")]:
        del sys.modules[name]


def test_all_that_is_public_is_found(package):
    load_script("reference").open_up(package)
    assert package.__all__ == ["late", "other", "room"] and package.__dict__["late"] is len
    assert package.room.__all__ == ["inner"]


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b/c.html#x">1</a><a href="#y">2</a><a href="d.html">3</a><p id="z">'
        '<a href="#z">4</a><a href="https://example.org">5</a><a href="b/c.html#gone">6</a>'
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.html").write_text('<h1 id="x"><a href="../a.html">7</a>')
    found = list(load_script("reference").broken_links(tmp_path))
    assert found == ["a.html: #y", "a.html: d.html", "a.html: b/c.html#gone"]
