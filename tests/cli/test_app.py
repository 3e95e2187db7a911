"""`dsd app` in a browser and over HTTP, with a program in the place of text3d that copies a run."""

import runpy
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from app_visit import until, visit
from gallery_run import make_run
from PIL import Image
from programs import ROOT, free_port

from dsd_jax.cli import app
from dsd_jax.cli.app_jobs import Jobs
from dsd_jax.cli.app_wish import Offer
from dsd_jax.cli.program import BAD_INPUT
from dsd_jax.export.pictures import save_png
from dsd_jax.export.viewer import HOST

# Writes the contact sheet, and after a moment the rest; with the preset standard, on Ctrl-C alone.
_PROGRAM = """
import pathlib, shutil, sys, time
made, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
run = pathlib.Path(words[words.index("--out") + 1]) / f"a-house-{len(words[1]):08x}"
print(f"{run}: 2 seeds; memory: 1 GB, in all 2 GB; compiling ...", flush=True)
run.mkdir(exist_ok=True)
for name in ("config.json", "seeds.png"):
    shutil.copy(made / name, run)
try:
    time.sleep(600 if "standard" in words else 1.5)
except KeyboardInterrupt:
    print("stopped; writing the results", flush=True)
shutil.copytree(made, run, dirs_exist_ok=True)
print(run)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, folder of the runs, the run that every job copies)."""
    pytest.importorskip("gradio")
    from dsd_jax.cli import app_page

    made = tmp_path_factory.mktemp("made") / "run"
    make_run(made, seeds=range(2), prompt="a house", bare=False)
    save_png(made / "seeds.png", np.full((40, 20, 3), 0.5))
    out, port = tmp_path_factory.mktemp("runs"), free_port()
    program = [sys.executable, "-c", _PROGRAM, str(made)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as app.main does: jobs inherit it
    with pytest.MonkeyPatch.context() as patch, Jobs(out, program=program) as jobs:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page = app_page.make(jobs, Offer(), out, tmp_path_factory.mktemp("copies"))
        page.launch(server_name=HOST, server_port=port, **app_page.settings(out))
        yield f"http://{HOST}:{port}", out, made
        page.close(verbose=False)


@pytest.fixture
def client(served):
    """Makes clients of the served page."""
    found = pytest.importorskip("gradio_client")
    return lambda: found.Client(served[0], verbose=False)


def test_type_grow_turn_download(served, browser):
    url, _, made = served
    found = visit(browser, url, "a house", seconds=180)
    assert found.read_bytes() == (made / "seed_0001" / "mesh.glb").read_bytes()


def test_two_visitors_queue_and_cancel(served, client, tmp_path):
    """The second one has a picture."""
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    _, out, made = served
    first, second = client(), client()
    long = first.submit("a house", seeds=2, preset="standard", api_name="/grow")
    until(long, lambda said: said.endswith(": 2 seeds; compiling ..."))
    Image.fromarray(np.zeros((6, 8, 4), np.uint8)).save(tmp_path / "Red brick.png")
    picture = handle_file(tmp_path / "Red brick.png")
    short = second.submit("", picture, 1, 0, "sds", "draft", api_name="/grow")
    until(short, lambda said: said == "waiting: 1 job before yours")
    second.predict(api_name="/cancel")
    assert short.result(120)[0] == "stopped …" and not long.done()
    with pytest.raises(AppError, match="not both"):
        second.predict("a house", picture, api_name="/grow")
    with pytest.raises(AppError, match=r"seeds must be a whole number from 1 to 8, not 9|maximum"):
        second.predict("a house", seeds=9, api_name="/grow")
    short = second.submit("", picture, 1, 0, "sds", "draft", api_name="/grow")
    first.predict(api_name="/cancel")
    assert long.result(120)[0].startswith("stopped: a-house-")  # its results are written
    said, sheet, run = short.result(120)
    assert said == f"done: {run}" and Path(sheet).read_bytes() == (made / "seeds.png").read_bytes()
    assert len(list(out.glob("pictures/*/Red brick.png"))) == 1
    model, scores, files = second.predict(run, "0", api_name="/seed")
    assert Path(model).read_bytes() == (made / "seed_0000" / "mesh.glb").read_bytes()
    assert ["steps", "7"] in scores["data"] and len(files) == 2
    for name, seed in (("../runs", "0"), (run, "7"), (run, "../seed_0000")):
        with pytest.raises(AppError, match=r"there is no run|has no seed"):
            second.predict(name, seed, api_name="/seed")


def test_nothing_is_served_but_copies(served, client):
    """By no path, however it is written; /grow hands out copies in gradio's own folder."""
    url, out, _ = served
    client().predict("a house", api_name="/grow")
    secret = out / "secret.txt"
    secret.write_text("secret")
    asked = [secret, *out.glob("*/*.json"), ROOT / "pyproject.toml", Path("/etc/passwd")]
    asked += [f"{out}/../{out.name}/secret.txt", f"/proc/self/root{secret}"]
    assert len(asked) > 6
    for path in asked:
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}{route}{path}")
            assert refused.value.code in (403, 404)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seeds", "0"], "--seeds must be a whole number from 1 to 1000, not 0"),
        (["--presets", "fast"], "--presets must be one of"),
        (["--waiting", "-1"], "--waiting must be at least 0"),
        (["--port", "70000"], "--port must be from 1 to 65535"),
        (["--host", "192.0.2.7"], "--host 192.0.2.7 --port 7860: "),
        (["--out", "/proc/runs"], "--out /proc/runs cannot be written"),
    ],
)
def test_bad_flags_are_one_line(flags, said, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", object())
    assert app.main(flags) == BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_without_gradio_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert app.main([]) == BAD_INPUT
    assert capsys.readouterr().err == ('error: app.py needs gradio: pip install "dsd_jax[app]"\n')


def test_the_space_starts_the_same_app(monkeypatch, tmp_path):
    space, started = ROOT / "experiments" / "space", []
    flags = runpy.run_path(str(space / "app.py"))["flags"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gradio", object())
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "serve", lambda *given: started.append(given))
    assert app.main([*flags, "--port", str(free_port())]) == 0
    ((args, offer),) = started
    assert args.host == "0.0.0.0" and offer.presets == ("draft", "quick") and offer.seeds == 4
    _, header, _ = (space / "README.md").read_text().split("---\n", 2)
    told = dict(line.split(": ", 1) for line in header.splitlines())
    assert told["sdk"] == "gradio" and (space / told["app_file"]).is_file()
    assert "dsd_jax[app]" in (space / "requirements.txt").read_text()
