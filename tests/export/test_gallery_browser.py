"""How the page of a run behaves in a browser, where there is one."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from gallery_run import PROMPT, make_run
from PIL import Image

from dsd_jax.export.gallery import write_gallery
from dsd_jax.export.overview import Row, write_overview
from dsd_jax.export.pictures import save_png


@pytest.fixture
def visit(browser):
    """(file, width) -> a page on which nothing but warnings may be said or asked for."""
    pages, bad = [], []

    def open_page(file: Path, width: int = 1200):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(120_000)
        page.on("console", lambda said: bad.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("requestfailed", lambda request: _gone_without(request) or bad.append(request.url))
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


def _gone_without(request) -> bool:
    """Whether a request ended only because the page was left, as a video that was still loading."""
    return request.failure == "net::ERR_ABORTED"


def tiles(page) -> list[int]:
    """The seeds of the grid as they stand."""
    return [int(text.removeprefix("Seed ")) for text in page.locator(".tile b").all_inner_texts()]


def focused(page) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def redness(page) -> float:
    """Share of the large view's first model that is clearly red, as it is and nothing else."""
    page.wait_for_function("[...document.querySelectorAll('#model > *')].every((m) => m.loaded)")
    best = 0.0
    for _ in range(40):  # until it is drawn
        shot = picture_of(page.locator("#model > model-viewer").first)
        best = max(best, float((shot[..., 0] > shot[..., 1] + 60).mean()))
        if best > 0.05:
            break
        page.wait_for_timeout(250)
    return best


def picture_of(element) -> np.ndarray:
    """What is seen of an element, float32 [h, w, 3] from 0 to 255."""
    shot = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return np.asarray(shot, np.float32)


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


def test_clay_turns_beside_the_coloured_mesh(gallery):
    gallery.click("#turn")  # which leaves the processor to the models
    gallery.click(".tile:nth-child(2) .open")
    assert redness(gallery) > 0.05
    for _ in range(40):  # until it is drawn
        clay = picture_of(gallery.locator("#model > model-viewer").last)
        if drawn := clay[60:-60, 60:-60].mean(-1).std() > 5:
            break
        gallery.wait_for_timeout(250)
    assert drawn and (np.ptp(clay, axis=-1) < 24).mean() > 0.99  # and yet nothing has a colour
    box = gallery.locator("#model > model-viewer").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    gallery.mouse.move(x, y)
    gallery.mouse.down()
    gallery.mouse.move(x + 120, y, steps=6)
    gallery.mouse.up()
    gallery.wait_for_function(
        """() => {
            const [a, b] = [...document.querySelectorAll('model-viewer')]
                .map((m) => m.getCameraOrbit().theta);
            return Math.abs(a - b) < 0.05 && Math.abs(a - 25 * Math.PI / 180) > 0.2;
        }"""
    )
    gallery.click("#close")


@pytest.mark.parametrize(("seeds", "width", "columns"), [(2, 1280, 2), (4, 1280, 2), (2, 390, 1)])
def test_few_seeds_leave_no_gaps(visit, tmp_path, seeds, width, columns):
    """Every tile is its picture, the clay beside it; the rows are full."""
    run = make_run(tmp_path / "run", seeds=range(seeds), bare=False)
    save_png(run / "picture.png", np.full((8, 8, 3), 0.5))
    page = visit(write_gallery(run), width=width)
    boxes = [tile.bounding_box() for tile in page.locator(".tile").all()]
    tops = {round(box["y"]) for box in boxes}
    assert len(boxes) == seeds and len(tops) == seeds // columns
    left, right = boxes[0], boxes[columns - 1]
    used = right["x"] + right["width"] - left["x"]
    assert used == pytest.approx(page.locator("main").bounding_box()["width"], abs=2)
    for kind in ("video", "img"):
        inside = page.locator(f".tile .open {kind}").first.bounding_box()
        assert inside["width"] == pytest.approx(left["width"] / 2, abs=2)
        assert inside["height"] == pytest.approx(inside["width"], abs=1)
    page.wait_for_function("[...document.images].every((image) => image.naturalWidth == 8)")
    assert page.locator("#picture img").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_overview_is_of_the_same_design(visit, tmp_path):
    run = make_run(tmp_path / "a-house-1a2b3c4d", seeds=range(8), prompt="a house")
    write_gallery(run)
    rows = [Row("a house", run, "complete"), Row("x" * 200), Row("c", None, "failed", "y" * 200)]
    page = visit(write_overview(tmp_path, rows), width=390)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("figure").count() == 8
    page.hover("video >> nth=0")
    page.wait_for_function("!document.querySelector('video').paused")

    def look():
        return page.evaluate(
            "[document.body, document.querySelector('h1')].map((e) => getComputedStyle(e))"
            ".map((s) => [s.fontFamily, s.color, s.maxWidth])"
        )

    here = look()
    page.click("h2 a")
    page.wait_for_selector(".tile")
    assert page.inner_text("h1") == "a house" and look() == here


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
