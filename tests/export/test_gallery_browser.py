"""How the page of a run behaves in a browser, where there is one."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from gallery_run import PROMPT
from PIL import Image

from dsd_jax.export.gallery import write_gallery


@pytest.fixture
def visit(browser):
    """(file, width) -> a page on which nothing but warnings may be said or asked for."""
    pages, bad = [], []

    def open_page(file: Path, width: int = 1200):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(120_000)
        page.on("console", lambda said: bad.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("requestfailed", lambda request: bad.append(request.url))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "blob:", "data:"))
                else bad.append(request.url)
            ),
        )  # fmt: skip
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not bad


def tiles(page) -> list[int]:
    """The seeds of the grid as they stand."""
    return [int(text.removeprefix("Seed ")) for text in page.locator(".tile b").all_inner_texts()]


def focused(page) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def redness(page) -> float:
    """Share of the large view that is clearly red, as the model is and nothing else."""
    page.wait_for_function("document.querySelector('#model model-viewer')?.loaded")
    best = 0.0
    for _ in range(40):  # until it is drawn
        shot = Image.open(io.BytesIO(page.locator("#model").screenshot())).convert("RGB")
        red, green, _ = np.moveaxis(np.asarray(shot, np.float32), -1, 0)
        best = max(best, float((red > green + 60).mean()))
        if best > 0.05:
            break
        page.wait_for_timeout(250)
    return best


@pytest.fixture
def gallery(visit, run):
    return visit(run / "index.html")


def test_the_grid(gallery):
    assert gallery.title() == gallery.inner_text("h1") == PROMPT
    assert tiles(gallery) == list(range(16)) and gallery.locator("video").count() == 16
    gallery.wait_for_function("[...document.querySelectorAll('video')].some((v) => !v.paused)")
    verdicts = gallery.locator(".verdict").all_inner_texts()
    assert verdicts[:3] == ["not accepted", "✓ accepted", "✓ accepted"]
    gallery.select_option("#sort", "diversity")
    assert tiles(gallery) == list(range(16))
    gallery.select_option("#sort", "fidelity")
    assert tiles(gallery) == [s for s in range(16) if s % 3] + list(range(0, 16, 3))
    gallery.select_option("#sort", "seed")
    gallery.click("#turn")
    assert gallery.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")


def test_the_large_view_and_the_keyboard(gallery):
    gallery.click(".tile:nth-child(2) .open")
    assert gallery.inner_text("#name") == "Seed 1"
    assert redness(gallery) > 0.05
    gallery.keyboard.press("ArrowRight")
    assert gallery.inner_text("#name") == "Seed 2"
    assert redness(gallery) > 0.05
    gallery.click("#previous")
    gallery.keyboard.press("ArrowLeft")
    gallery.keyboard.press("ArrowLeft")
    assert gallery.inner_text("#name") == "Seed 15"
    gallery.wait_for_selector("#model video")  # it has no mesh
    assert gallery.inner_text("#hint") == "there is no mesh on this page"
    gallery.click("#next")
    gallery.keyboard.press("ArrowRight")
    gallery.keyboard.press("ArrowRight")
    gallery.keyboard.press("Escape")
    gallery.wait_for_selector("#large", state="hidden")
    gallery.keyboard.press("Enter")  # the same once more
    gallery.wait_for_selector("#large", state="visible")
    assert gallery.inner_text("#name") == "Seed 2" and redness(gallery) > 0.05
    assert gallery.inner_text("#hint").startswith("drag to turn")
    for _ in range(3):
        gallery.keyboard.press("ArrowLeft")
    gallery.keyboard.press("Escape")
    gallery.wait_for_selector("#large", state="hidden")
    gallery.wait_for_function("document.activeElement.ariaLabel === 'Seed 15: large view'")
    gallery.keyboard.press("ArrowLeft")
    assert focused(gallery) == "Seed 14: large view"
    columns = gallery.evaluate(
        "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
    )
    gallery.keyboard.press("ArrowUp")
    assert focused(gallery) == f"Seed {14 - columns}: large view"
    gallery.keyboard.press("Enter")
    gallery.wait_for_selector("#large", state="visible")
    assert gallery.inner_text("#name") == f"Seed {14 - columns}"
    gallery.click("#close")


def test_light_and_dark(gallery):
    def brightness():
        return gallery.evaluate(
            "Number(getComputedStyle(document.documentElement).backgroundColor.match(/[0-9.]+/)[0])"
        )

    gallery.emulate_media(color_scheme="dark")
    assert brightness() < 60
    gallery.click("#theme")
    assert brightness() > 200
    gallery.click("#theme")
    assert brightness() < 60


def test_a_phone_and_a_single_file(visit, run):
    path = write_gallery(run, single_file=True)
    alone = run.parent / "alone" / "sent.html"
    alone.parent.mkdir()
    shutil.move(path, alone)
    page = visit(alone, width=390)

    def fits() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    assert fits() and len(tiles(page)) == 16
    page.click("summary")
    assert fits()
    page.click(".tile:nth-child(3) .open")
    assert redness(page) > 0.05
    box = page.locator("#large").bounding_box()
    assert box["x"] == box["y"] == 0 and box["width"] == 390 and box["height"] == 800
    assert page.locator("#close").bounding_box()["x"] < 390 - 36
    assert page.locator("#details").is_visible() and fits()
    page.click("#close")
