"""`dsd app` as a process, with text3d and single_view themselves and tiny priors."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from app_visit import until, visit
from PIL import Image
from programs import ROOT, SMALL, free_port

from dsd_jax.export import manifest
from dsd_jax.export.run_folder import read_metrics

pytestmark = pytest.mark.slow


class App:
    """The process; what stands after -- makes its runs tiny, with meshes."""

    def __init__(self, prior: Path, picture_prior: Path, out: Path):
        self.out, self.url = out, f"http://localhost:{(port := free_port())}"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }  # fmt: skip
        flags = ["--port", port, "--out", out, "--prior", prior, "--picture-prior", picture_prior]
        small = ["--", *SMALL[2:], "--devices", "1", "--mesh", "--preview-seconds", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dsd_jax", "app", *map(str, flags), *small], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said = self.process.stdout.readline()
        assert said == f"app: {self.url}\n", said + self.process.stdout.read()


@pytest.fixture(scope="module")
def served(tiny_prior_folder, zero123_file, tmp_path_factory):
    pytest.importorskip("gradio")
    served = App(tiny_prior_folder, zero123_file, tmp_path_factory.mktemp("runs"))
    yield served
    if served.process.poll() is None:
        served.process.kill()


def test_a_prompt_in_the_browser(served, browser):
    found = visit(browser, served.url, "red red house", seconds=600)
    (run,) = served.out.glob("red-red-house-*")
    assert not manifest.faults(run) and sorted(read_metrics(run)["seeds"]) == ["0", "1"]
    assert found.read_bytes() == (run / "seed_0001" / "mesh.glb").read_bytes()


def test_a_picture_over_http_and_ctrl_c(served, tmp_path):
    client = pytest.importorskip("gradio_client")
    picture = np.zeros((30, 40, 4), np.uint8)
    picture[8:22, 10:30] = [220, 0, 0, 255]
    Image.fromarray(picture).save(tmp_path / "Red brick.png")
    visitor = client.Client(served.url, verbose=False)
    picture = client.handle_file(tmp_path / "Red brick.png")
    said, _, run = visitor.predict("", picture, 1, 0, "sds", "draft", api_name="/grow")
    assert said == f"done: {run}" and run.startswith("red-brick-")
    assert (served.out / run / "picture.png").is_file()
    long = visitor.submit("red house", seeds=1, preset="standard", api_name="/grow")
    until(long, lambda said: said.startswith("growing: optimising"))
    served.process.send_signal(signal.SIGINT)
    said, _ = served.process.communicate(timeout=120)
    assert served.process.returncode == 0 and said.endswith("stopped\n")
    (run,) = served.out.glob("red-house-*")
    assert not (run / ".lock").exists() and list((run / "checkpoints").glob("*"))
