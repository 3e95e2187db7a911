"""Files of prompts."""

import pytest

from dsd_jax.cli import prompts


def test_files_and_prompts_themselves(tmp_path):
    file = tmp_path / "study.txt"
    file.write_text("# comment\na house  # here too\n\n a tree\n", "utf-8")
    assert prompts.read([str(file), "a car"]) == ["a house", "a tree", "a car"]


def test_what_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no prompt"):
        prompts.read([str(tmp_path / "empty.txt")])
    with pytest.raises(ValueError, match="'A tree' comes twice, or shares its file's name"):
        prompts.read(["a tree", "A tree"])
    with pytest.raises(FileNotFoundError, match=r"gone.txt: there is no such file"):
        prompts.read([str(tmp_path / "gone.txt")])
