"""A visit to `dsd app` in a browser, for its tests: type, grow, turn, download, come again."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def visit(browser, url: str, prompt: str, seconds: float = 60) -> Path:
    """Two seeds of a prompt, the second one turned; returns what was downloaded of it.

    Args:
        seconds: how long the longest step may take.

    Raises AssertionError where anything of another machine is asked for.
    """
    page, foreign = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.set_default_timeout(1000 * seconds)

    def note(asked) -> None:
        if not asked.url.startswith((url, "data:", "blob:")):
            foreign.append(asked.url)

    page.on("request", note)
    page.goto(url)
    page.get_by_role("button", name="Grow").click()
    page.get_by_text("say what to make").wait_for()
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("spinbutton", name="Seeds").fill("2")
    page.get_by_label("Preset").click()
    page.get_by_role("option", name="draft").click()
    page.get_by_role("button", name="Grow").click()
    page.locator("#sheet img").wait_for()
    page.get_by_role("radio", name="1").wait_for()
    said = page.get_by_label("What is done").input_value()
    assert said.startswith(f"{prompt} · 2 seeds · complete"), said

    page.get_by_role("radio", name="1").click()
    download = page.locator("[data-testid=download-link][download$='seed_0001.glb']")
    download.wait_for()
    canvas = page.locator("#model canvas")
    canvas.scroll_into_view_if_needed()
    before, box = drawn(page, canvas), canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1000)
    assert (np.abs(drawn(page, canvas) - before).max(-1) > 10).mean() > 0.01
    with page.expect_download() as given:
        download.click()
    found = Path(given.value.path())

    page.reload()  # another visit: the run has stayed
    page.get_by_label("Runs").click()
    page.get_by_role("option", name=prompt).click()
    page.locator("[data-testid=download-link][download$='seed_0000.glb']").wait_for()
    assert not foreign
    return found


def drawn(page, canvas) -> np.ndarray:
    """What a canvas shows, [h, w, 3] from 0 to 255, once there is an object on it."""
    for _ in range(240):
        shot = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        shot = np.asarray(shot, np.float32)
        if shot[40:-40, 40:-40].std() > 5:
            return shot
        page.wait_for_timeout(250)
    raise AssertionError("nothing is drawn")


def until(job, condition) -> None:
    """Wait for an output of a gradio_client job whose first value meets a condition."""
    import time

    for _ in range(6000):
        if any(condition(said) for said, *_ in job.outputs()):
            return
        time.sleep(0.05)
    raise AssertionError(job.outputs())
