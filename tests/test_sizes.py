"""Sizes that do not fit are refused before anything is compiled of what a prior is told."""

import jax
import numpy as np
import pytest
from PIL import Image

from dsd_jax.cli import ablate, compare, image2d, single_view, text3d
from dsd_jax.engine import memory
from dsd_jax.priors import stable_diffusion, zero123
from dsd_jax.recipe import elevation

PROMPT = ["--prompt", "a red house"]
MANY = ["--seeds", "0:60000"]


@pytest.fixture
def asked(monkeypatch):
    """Whether each time that a prior was told something it computed, or told shapes alone."""
    found = []

    def spied(kind):
        condition = kind.condition

        def spy(self, *told, **how):
            made = condition(self, *told, **how)
            leaves = jax.tree.leaves(made)
            found.append(not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves))
            return made

        monkeypatch.setattr(kind, "condition", spy)

    for module in (stable_diffusion, zero123):
        spied(module.Prior)
    monkeypatch.setattr(memory, "bytes_available", lambda: 2 * 10**9)
    monkeypatch.setattr(elevation, "estimate", lambda *_: pytest.fail("it was estimated"))
    return found


@pytest.fixture
def picture(tmp_path):
    rgb = np.full((40, 40, 3), 255, np.uint8)
    rgb[8:32, 12:28] = [200, 30, 30]
    Image.fromarray(rgb).save(tmp_path / "cup.png")
    return ["--image", str(tmp_path / "cup.png")]


def refused(program, prior, tmp_path, capsys, *flags) -> str:
    out = tmp_path / "runs"
    assert program.main(["--prior", str(prior), "--out", str(out), *flags]) == 2
    *warnings, said = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ") and all(line.startswith("warning: ") for line in warnings)
    assert not out.exists()
    return said


@pytest.mark.parametrize(
    ("program", "flags", "said"),
    [
        (text3d, [*PROMPT, "--devices", "99"], "--devices must be from 1 to"),
        (text3d, [*PROMPT, "--max-memory-gb", "0.001"], "but --max-memory-gb is 0.001"),
        (text3d, ["--prompts", "a red house", "a tree", *MANY], "60000 seeds"),
        (text3d, [*PROMPT, "--shard-prior", "97"], "--shard-prior 97 does not divide the devices"),
        (image2d, [*PROMPT, *MANY], "60000 seeds at once need about"),
        (compare, ["--methods", "sds", *MANY, "--no-score"], "60000 seeds at once need about"),
        (ablate, [*MANY, "--no-score"], "60000 seeds at once need about"),
    ],
)
def test_of_prompts(tiny_prior_folder, tmp_path, capsys, asked, program, flags, said):
    assert said in refused(program, tiny_prior_folder, tmp_path, capsys, *flags)
    assert not any(asked)


@pytest.mark.parametrize("flags", [["--devices", "99"], ["--max-memory-gb", "0.001"], MANY])
def test_of_a_picture(zero123_folder, picture, tmp_path, capsys, asked, flags):
    refused(single_view, zero123_folder, tmp_path, capsys, *picture, *flags)
    assert asked == [False]
