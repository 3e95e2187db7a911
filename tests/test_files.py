"""Files appear whole or not at all, names are safe, and JSON is plain."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.files import (
    atomic_path,
    config_hash,
    file_name,
    read_json,
    reading,
    slug,
    sweep,
    write_json,
)


def test_appears_only_at_the_end(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


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
    assert slug(text) == expected


def test_slugs_are_bounded_and_safe():
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(chr(c) for c in rng.integers(1, 0x3000, rng.integers(0, 90)))
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(text))
        assert len(slug(text, 20)) <= 20


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
    write_json(path, value)
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
    write_json(path, 1)
    with pytest.raises(TypeError, match="set has no place"):
        write_json(path, {"a": {1, 2}})
    assert path.read_text() == "1\n" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_hash_depends_on_values_and_not_on_their_order():
    config = {"prompt": "a house", "steps": 10}
    assert config_hash(config) == config_hash({"steps": np.int32(10), "prompt": "a house"})
    assert config_hash(config) != config_hash(config | {"steps": 11})
    assert re.fullmatch("[0-9a-f]{8}", config_hash(config))


@pytest.mark.parametrize("text", ["null", "[]", "{", "", '"a"', "{}", '{"a": []}', "[" * 100_000])
def test_json_of_a_run_that_is_damaged_is_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a.json is damaged: [^\n]+$"):
        read_json(path, a=dict)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="is damaged"):
        read_json(path)
    path.write_text('{"a": {"b": 1}}')
    assert read_json(path, a=dict) == {"a": {"b": 1}}
    with pytest.raises(FileNotFoundError, match="does not exist; give the folder of a finished"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda held: held["b"], "it does not say b"),
        (lambda held: held["a"]["b"], "an entry of it is missing, unknown, or of another kind"),
        (lambda held: held.b, "an entry of it is missing, unknown, or of another kind"),
        (lambda held: np.uint32(-held["a"]), "an entry of it is missing, unknown, or of another k"),
        (lambda held: json.loads("{"), "it is no JSON from line 1, column 2 on"),
        (lambda held: b"\xff".decode(), "it is no text in UTF-8"),
        (lambda held: float("x" * 999), "could not convert string to float"),
    ],
)
def test_what_does_not_fit_a_file_s_content_is_said_in_words_with_the_mend(use, said):
    with pytest.raises(ValueError) as caught, reading("runs/a.json"):
        use({"a": 1})
    line = str(caught.value)
    assert line.startswith(f"runs/a.json is damaged: {said}") and len(line) < 500
    assert line.endswith("; the command that made it makes it again")
    assert not re.search(r"Error|Traceback|\n", line)


def test_only_temporary_files_are_swept_and_only_old_ones_where_others_write(tmp_path):
    names = [f".{'0' * 32}.mp4", f".{'a' * 32}", ".lock", f"{'0' * 32}.mp4", ".hidden.png"]
    for name in names:
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"")
    sweep(tmp_path, 60)
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(names)
    sweep(tmp_path)
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(names[2:])


def test_other_texts_have_other_file_names():
    texts = [
        "a house",
        "A house",
        "a house!",
        "a-house",
        "一座",
        "椅子",
        "prompt",
        "a" * 60,
        "a" * 61,
    ]
    assert file_name("a house") == "a-house"
    assert len({file_name(text) for text in texts}) == len(texts)
