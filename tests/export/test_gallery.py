"""The page of a run: what is in it."""

import base64
import gzip
import json
import random
import re
import shutil

import numpy as np
import pytest
from gallery_run import PROMPT, make_run

from dsd_jax.cli import export_gallery
from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export import manifest
from dsd_jax.export.gallery import gallery_page, write_gallery
from dsd_jax.export.pictures import save_png
from dsd_jax.files import write_json


def shown(page: str) -> dict:
    """What the page's script is told."""
    (text,) = re.findall(r'<script type="application/json" id="run">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_a_page_tells_the_run(run):
    told = shown((run / "index.html").read_text("utf-8"))
    assert told["title"] == PROMPT
    assert told["facts"] == (
        "16 seeds · dsd with toybox · preset quick · 7 steps · 2 min 5 s on 2 × CPU"
    )
    assert told["command"].startswith("dsd text3d --prompt 'a </script>")
    assert told["command"].endswith(" --steps 7 --condition.negative-prompt '<b>'")
    assert [score[:2] for score in told["scores"]] == [["Diversity", "0.42"], ["Fidelity", "62%"]]
    assert told["settings"] == {
        "method.eta_at": "–", "condition.negative_prompt": "<b>", "steps": "7"
    }  # fmt: skip
    assert [seed["seed"] for seed in told["seeds"]] == list(range(16))
    second = told["seeds"][1]
    assert second["diversity"] == 0.49 and second["verdict"] == "✓ accepted"
    assert dict(second["details"]) == {
        "diversity": "0.49", "judge's neighbours": "house 2, rock 1", "steps": "7",
        "mesh.glb": "0.0 MB", "faces": "4",
        "mesh, silhouettes": "IoU 0.95", "mesh, colours": "30.5 dB",
        "bump": "12°, 1.2 × real ones", "creased": "50%, 2.0 × real ones",
        "parts": "2, not watertight", "faces that cut": "1,234",
        "as clay": "✓ accepted",
    }  # fmt: skip
    assert [text for text, _, _ in second["downloads"]] == ["GLB", "video", "field"]
    assert second["downloads"][0][2] == "a-red-house-1a2b3c4d_seed_0001.glb"
    files = [second["video"], second["poster"], second["model"], second["beside"]]
    files += [view for view, _ in second["views"] + second["clay"]]
    files += [href for _, href, _ in second["downloads"]]
    assert len(files) == 23 and all((run / file).is_file() for file in files)
    last = told["seeds"][15]
    assert not {"model", "beside"} & {*last} and not last["clay"]
    assert not (run / "seed_0015" / "mesh.js").exists()


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
    clay = (run / "seed_0000" / "clay" / "az045.png").read_bytes()
    assert base64.b64decode(first["beside"].removeprefix("data:image/png;base64,")) == clay
    assert "packed" not in last and not first["downloads"]
    assert not first["views"] and not first["clay"]
    small = gallery_page(run, models=False)
    assert len(small) < 80_000 and "packed" not in shown(small)["seeds"][0]


def test_runs_with_numbers_that_are_no_longer_known_and_without_scores(tmp_path):
    run = make_run(tmp_path, seeds=range(2), prompt="a house")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["method"]["no_longer_known"] = 1
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
    config["given"] = {"image": "/pictures/my chair.png"}
    del config["prompt"]
    write_json(run / "config.json", config)
    metrics = {"diversity": 0.1, "psnr_db": 21.26, "mask_iou": 0.912, "seeds": {
        str(seed): {"diversity": 0.1, "psnr_db": 21.0 + seed, "mask_iou": 0.9} for seed in range(2)
    }}  # fmt: skip
    write_json(run / "metrics.json", metrics)
    assert "picture" not in shown(gallery_page(run, embed=False))
    save_png(run / "picture.png", np.full((8, 8, 3), 0.5))
    told = shown(gallery_page(run, embed=False))
    assert told["title"] == "my chair.png" and told["picture"] == "picture.png"
    assert shown(gallery_page(run))["picture"].startswith("data:image/png;base64,")
    assert told["command"].startswith(
        "dsd single-view --image '/pictures/my chair.png' --elevation-deg 20 --seeds 0,1 "
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
    (run / "index.html").unlink()
    assert export_gallery.main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'index.html'}\n" and (run / "index.html").is_file()
    assert export_gallery.main([str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/config.json does not exist; give the folder of a finished run\n"
    )


def test_a_lost_seed_is_marked(tmp_path):
    """And has neither a video nor files."""
    run = make_run(tmp_path, seeds=range(3))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["lost"], metrics["seeds"]["1"] = (
        [1],
        {"steps": 3, "lost": "diverged", "diversity": None},
    )
    write_json(run / "metrics.json", metrics)
    shutil.rmtree(run / "seed_0001")
    told = shown(gallery_page(run, embed=False))
    second = told["seeds"][1]
    assert second["verdict"] == "✗ diverged" and second["rank"] < 0
    assert "video" not in second and second["downloads"] == []
    assert "3 seeds · 1 of them lost" in told["facts"]
    assert "video" not in shown(gallery_page(run, embed=True))["seeds"][1]


def test_whatever_is_wrong_in_a_file_is_one_line(tmp_path, capsys):
    """Of JSON, and no JSON: seeded mutations of each file that the page is made of."""
    rng, run = random.Random(7), make_run(tmp_path / "run", seeds=range(2))
    for name in ("config.json", "metrics.json", "seed_0000/mesh.json"):
        whole = (run / name).read_text()
        for _ in range(40):
            (run / name).write_text(mutated(whole, rng))
            code = export_gallery.main([str(run)])
            said = capsys.readouterr().err
            assert code in (0, 2) and said.count("\n") == (code == 2), said
        (run / name).write_text(whole)
    assert export_gallery.main([str(run)]) == 0


@pytest.mark.parametrize("flags", [[], ["--single-file"]])
@pytest.mark.parametrize(
    "name", ["mesh.glb", "turntable.mp4", "views/az045.png", "field.safetensors", ""]
)
def test_a_run_whose_files_are_gone_or_damaged_has_no_page(tmp_path, capsys, name, flags):
    """Which are named; nothing is written."""
    run = make_run(tmp_path / "run", seeds=range(2), bare=False)
    manifest.write_manifest(run)
    place = run / "seed_0001" / name
    if name:
        place.write_bytes(place.read_bytes()[:-1] + b"x")
    else:
        shutil.rmtree(place)
    before = {path for path in run.rglob("*")}
    assert export_gallery.main([str(run), *flags]) == BAD_INPUT
    said = capsys.readouterr().err
    assert f"missing or damaged: seed_0001/{name}" in said and said.count("\n") == 1
    assert said.endswith("; the command that made it makes it again\n")
    assert {path for path in run.rglob("*")} == before
    (run / manifest.NAME).unlink()
    assert export_gallery.main([str(run), *flags]) == (0 if name else BAD_INPUT)
    assert name or "seed_0001 does not exist; the command" in capsys.readouterr().err


def mutated(text: str, rng: random.Random) -> str:
    """Cut off, or of another type somewhere, or without a key."""
    if rng.random() < 0.2:
        return text[: rng.randrange(len(text))]
    value = json.loads(text)
    at, key = value, None
    while isinstance(at, dict) and at:
        holder, key = at, rng.choice(sorted(at))
        at = at[key]
        if rng.random() < 0.3:
            break
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice([None, [], {}, "x", -1, True, {"a": None}])
    return json.dumps(value if rng.random() < 0.95 else None)
