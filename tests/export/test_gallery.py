"""The page of a run: what is in it, and how it behaves in a browser (where there is one)."""

import base64
import gzip
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

from dsd_jax.export.gallery import gallery_page, write_gallery
from dsd_jax.export.model_files import Model, save_model
from dsd_jax.export.pictures import save_png
from dsd_jax.export.run_folder import write_json
from dsd_jax.export.video import save_video

PROMPT = "a </script><script>alert(1)</script> \"red\" & 'big' house, 家 /*SCRIPT*/"


def red_tetrahedron() -> Model:
    corners = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0, 0, 0.5], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    normals = corners - [0, 0.3, 0]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Model(corners, faces, normals, np.tile(np.uint8([220, 10, 10]), (4, 1)))


def make_run(folder: Path, seeds=range(16), prompt: str = PROMPT) -> Path:
    """A finished run: the last seed has no mesh; every third was refused; diversity falls."""
    turn = np.stack([np.full((32, 32, 3), 0.3 + 0.2 * i) for i in range(3)])
    save_video(folder / "turntable.mp4", turn, fps=3)
    save_model(folder, red_tetrahedron())
    write_json(folder / "config.json", {
        "prompt": prompt, "seeds": list(seeds), "method": "dsd", "prior": "toybox",
        "preset": "quick", "precision": "float32", "version": "0.1.0",
        "settings": {"steps": 7, "eta_at": None, "negative_prompt": "<b>"},
    })  # fmt: skip
    scores = {
        str(seed): {"steps": 7, "diversity": 0.5 - 0.01 * seed, "accepted": seed % 3 > 0,
                    "neighbours": ["house", "rock", "house"]}
        for seed in seeds
    }  # fmt: skip
    write_json(folder / "metrics.json", {
        "diversity": 0.425, "fidelity": {"accepted": 0.625, "category": "house", "reason": None},
        "seeds": scores, "seconds": {"total": 125.3}, "device": "cpu", "devices": 2,
        "interrupted": False,
    })  # fmt: skip
    for seed in seeds:
        own = folder / f"seed_{seed:04d}"
        for azimuth in range(0, 360, 45):
            save_png(own / "views" / f"az{azimuth:03d}.png", np.full((8, 8, 3), 0.8))
        shutil.copy(folder / "turntable.mp4", own)
        (own / "field.safetensors").write_bytes(b"field")
        if seed != seeds[-1]:
            shutil.copy(folder / "mesh.glb", own)
            write_json(own / "mesh.json", {"faces": 4, "silhouette_iou": [0.9, 1.0],
                                           "psnr_db": [30.0, 31.0]})  # fmt: skip
    return folder


def shown(page: str) -> dict:
    """What the page's script is told."""
    (text,) = re.findall(r'<script type="application/json" id="run">(.*?)</script>', page, re.S)
    return json.loads(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With a page, in a folder whose name is not easy for URLs."""
    folder = make_run(tmp_path_factory.mktemp("a run 家 #1") / "a-red-house-1a2b3c4d")
    assert write_gallery(folder) == folder / "index.html"
    return folder


def test_a_page_tells_the_run(run):
    told = shown((run / "index.html").read_text("utf-8"))
    assert told["title"] == PROMPT
    assert told["facts"] == (
        "16 seeds · dsd with toybox · preset quick · 7 steps · 2 min 5 s on 2 × CPU"
    )
    assert told["command"].startswith("python experiments/text3d.py --prompt 'a </script>")
    assert told["command"].endswith(" --negative-prompt '<b>' --steps 7")
    assert [score[:2] for score in told["scores"]] == [["Diversity", "0.42"], ["Fidelity", "62%"]]
    assert told["settings"] == {"eta_at": "–", "negative_prompt": "<b>", "steps": "7"}
    assert [seed["seed"] for seed in told["seeds"]] == list(range(16))
    second = told["seeds"][1]
    assert second["diversity"] == 0.49 and second["verdict"] == "✓ accepted"
    assert dict(second["details"]) == {
        "diversity": "0.49", "judge's neighbours": "house 2, rock 1", "steps": "7",
        "mesh.glb": "0.0 MB", "faces": "4",
        "mesh, silhouettes": "IoU 0.95", "mesh, colours": "30.5 dB",
    }  # fmt: skip
    assert [text for text, _, _ in second["downloads"]] == ["GLB", "video", "field"]
    assert second["downloads"][0][2] == "a-red-house-1a2b3c4d_seed_0001.glb"
    files = [second["video"], second["poster"], second["model"]]
    files += [view for view, _ in second["views"]] + [href for _, href, _ in second["downloads"]]
    assert len(files) == 14 and all((run / file).is_file() for file in files)
    assert "model" not in told["seeds"][15] and not (run / "seed_0015" / "mesh.js").exists()


def test_it_is_small_and_asks_for_nothing(run):
    page = (run / "index.html").read_text("utf-8")
    assert (run / "index.html").stat().st_size < 500_000
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[^"'\s>]*[:/.]""", page)
    assert (
        "https:" not in page and "http:" not in page and "import" not in page.split("<script>")[1]
    )


def test_what_a_prompt_says_is_never_markup(run):
    page = (run / "index.html").read_text("utf-8")
    assert "<script>alert" not in page and "<b>" not in page.replace("<b></b>", "")
    # Run, viewer, script: no more, no less.
    assert len(re.findall("<script", page)) == len(re.findall("</script>", page)) == 3


def test_a_mesh_is_handed_over_unchanged(run):
    script = (run / "seed_0003" / "mesh.js").read_text()
    seed, packed = re.fullmatch(r'galleryModel\((\d+),"([A-Za-z0-9+/=]+)"\)\n', script).groups()
    assert seed == "3"
    glb = (run / "seed_0003" / "mesh.glb").read_bytes()
    assert gzip.decompress(base64.b64decode(packed)) == glb


def test_a_page_that_holds_all(run, tmp_path):
    path = write_gallery(run, single_file=True)
    told = shown(path.read_text("utf-8"))
    path.unlink()
    first, last = told["seeds"][0], told["seeds"][15]
    video = (run / "turntable.mp4").read_bytes()
    assert base64.b64decode(first["video"].removeprefix("data:video/mp4;base64,")) == video
    assert gzip.decompress(base64.b64decode(first["packed"])) == (run / "mesh.glb").read_bytes()
    assert "packed" not in last and not first["downloads"] and not first["views"]
    small = gallery_page(run, models=False)
    assert len(small) < 80_000 and "packed" not in shown(small)["seeds"][0]


def test_older_runs_of_other_settings(tmp_path):
    run = make_run(tmp_path, seeds=range(2), prompt="a house")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["no_longer_known"] = 1
    write_json(run / "config.json", config)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"fidelity": {"accepted": None, "reason": "no house"}, "interrupted": True}
    metrics["diversity"] = metrics["seeds"]["0"]["diversity"] = None
    del metrics["seconds"], metrics["seeds"]["1"]["neighbours"], metrics["seeds"]["1"]["accepted"]
    write_json(run / "metrics.json", metrics)
    told = shown(gallery_page(run, embed=False))
    assert "no-longer-known" not in told["command"]
    assert told["facts"].endswith("7 steps, interrupted")
    assert told["scores"][0][1] == "–" and told["scores"][1] == ["Fidelity", "–", "no house"]
    assert told["seeds"][0]["diversity"] is None and told["seeds"][1]["verdict"] == ""


def test_a_run_of_a_picture(tmp_path):
    run = make_run(tmp_path, seeds=range(2))
    config = json.loads((run / "config.json").read_text())
    config |= {"image": "my chair.png", "elevation_deg": 20.0}
    del config["prompt"]
    write_json(run / "config.json", config)
    metrics = {"diversity": 0.1, "psnr_db": 21.26, "mask_iou": 0.912, "seeds": {
        str(seed): {"diversity": 0.1, "psnr_db": 21.0 + seed, "mask_iou": 0.9} for seed in range(2)
    }}  # fmt: skip
    write_json(run / "metrics.json", metrics)
    told = shown(gallery_page(run, embed=False))
    assert told["title"] == "my chair.png"
    assert told["command"].startswith(
        "python experiments/single_view.py --image 'my chair.png' --elevation-deg 20 --seeds 0,1 "
    )
    assert told["scores"][1] == [
        "Like the picture", "21.3 dB", "from the picture's side; silhouettes IoU 0.91"
    ]  # fmt: skip
    assert [seed["verdict"] for seed in told["seeds"]] == ["21.0 dB", "22.0 dB"]
    assert [seed["rank"] for seed in told["seeds"]] == [21, 22]
    assert ["silhouettes, picture", "IoU 0.90"] in told["seeds"][0]["details"]


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"config\.json does not exist; give the folder of a"
    ):
        write_gallery(tmp_path)
    write_json(tmp_path / "config.json", {"prompt": "a house"})
    with pytest.raises(FileNotFoundError, match=r"metrics\.json does not exist; give the folder"):
        write_gallery(tmp_path)
    write_json(tmp_path / "metrics.json", {"seeds": {}})
    with pytest.raises(ValueError, match=r"config\.json is not that of a 3D run"):
        write_gallery(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "metrics.json"}


def test_the_program(run, tmp_path, capsys):
    program = programs.load_script("export_gallery")
    (run / "index.html").unlink()
    assert program.main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'index.html'}\n" and (run / "index.html").is_file()
    assert program.main([str(tmp_path)]) == program.BAD_INPUT
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/config.json does not exist; give the folder of a finished run\n"
    )


# ---- in a browser --------------------------------------------------------------------------


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
