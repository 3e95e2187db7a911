"""Names that are safe, and JSON that is plain."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.export import run_folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a house", "a-house"),
        ("  A Red   House!! ", "a-red-house"),
        ("log house, with gray-roof", "log-house-with-gray-roof"),
        ("café São Tomé", "cafe-sao-tome"),
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "con"),
        ("家", "prompt"),
        ("家 house", "house"),
        ("🚗", "prompt"),
        ("", "prompt"),
        ("a\x00b\nc", "a-b-c"),
        ("x" * 500, "x" * 48),
        ("one two " * 30, "one-two-one-two-one-two-one-two-one-two-one-two"),
    ],
)
def test_slugs(text, expected):
    assert run_folder.slug(text) == expected


def test_slugs_are_bounded_and_safe():
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(chr(c) for c in rng.integers(1, 0x3000, rng.integers(0, 90)))
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", run_folder.slug(text))
        assert len(run_folder.slug(text, 20)) <= 20


def test_folders(tmp_path):
    config = {"prompt": "a house", "steps": 10, "lr": 0.1}
    folder = run_folder.run_folder(tmp_path, "a house", config)
    assert re.fullmatch(r"a-house-[0-9a-f]{8}", folder.name) and not folder.exists()
    reordered = {"lr": np.float64(0.1), "steps": np.int32(10), "prompt": "a house"}
    assert run_folder.run_folder(tmp_path, "a house", reordered) == folder
    assert run_folder.run_folder(tmp_path, "a house", config | {"steps": 11}) != folder
    assert run_folder.seed_folder("run", 7) == Path("run/seed_0007")
    assert run_folder.seed_folder("run", 123456).name == "seed_123456"
    names = [run_folder.view_name(45.0 * i) for i in range(9)]
    assert names[:2] == ["az000.png", "az045.png"] and names[7:] == ["az315.png", "az000.png"]


def test_json_is_sorted_and_plain(tmp_path):
    path = tmp_path / "deep" / "metrics.json"
    value = {
        "z": np.float32(0.5),
        "a": [jnp.float32(2), np.int64(3), np.bool_(True), None, "ü"],
        "nan": float("nan"),
        "inf": [np.inf, jnp.array([1.0, -jnp.inf])],
        "array": np.arange(4).reshape(2, 2),
        "path": Path("a"),
        3: (1, 2),
    }
    run_folder.write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "z": 0.5,
        "a": [2.0, 3, True, None, "ü"],
        "nan": None,
        "inf": [None, [1.0, None]],
        "array": [[0, 1], [2, 3]],
        "path": "a",
        "3": [1, 2],
    }
    assert list(json.loads(text)) == sorted(json.loads(text)) and text.endswith("}\n")


def test_json_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    run_folder.write_json(path, 1)
    with pytest.raises(TypeError, match="set has no place"):
        run_folder.write_json(path, {"a": {1, 2}})
    assert path.read_text() == "1\n" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_seeds_are_the_folders_that_are_there(tmp_path):
    for name in ("seed_0010", "seed_0002", "seed_12345", "seed_x", "views"):
        (tmp_path / name).mkdir()
    assert run_folder.seeds_of(tmp_path) == [2, 10, 12345]
    with pytest.raises(FileNotFoundError, match="holds no seed_0000 or another seed"):
        run_folder.seeds_of(tmp_path / "views")
