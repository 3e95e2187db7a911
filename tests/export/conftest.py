"""A browser for what is looked at in one."""

import shutil
from pathlib import Path

import pytest

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
