"""A browser for what is looked at in one, and a run with its page."""

import shutil
from pathlib import Path

import pytest
from gallery_run import make_run

from dsd_jax.export.gallery import write_gallery

NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell"]
SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    """Chromium by Playwright; tests that want it are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with api.sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("there is no Chromium")
        chromium = playwright.chromium.launch(executable_path=found, args=SOFTWARE_GL)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With a page, in a folder whose name is not easy for URLs."""
    folder = make_run(tmp_path_factory.mktemp("a run 家 #1") / "a-red-house-1a2b3c4d")
    assert write_gallery(folder) == folder / "index.html"
    return folder
