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
    with pytest.raises(ValueError, match="'a tree' comes twice"):
        prompts.read(["a tree", "a tree"])
    with pytest.raises(ValueError, match=r"folder.txt is a folder"):
        (tmp_path / "folder.txt").mkdir()
        prompts.read([str(tmp_path / "folder.txt")])
    with pytest.raises(FileNotFoundError, match=r"gone.txt: there is no such file"):
        prompts.read([str(tmp_path / "gone.txt")])


@pytest.mark.parametrize("name", ["bom.txt", "LOUD.TXT"])
def test_marks_and_capitals_do_not_matter(tmp_path, name):
    (tmp_path / name).write_text("ein Stück Käse\r\na house", "utf-8-sig")
    assert prompts.read([str(tmp_path / name)]) == ["ein Stück Käse", "a house"]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"),
     ("latin-1", "Latin-1"), ("utf-32", "UTF-16"), ("utf-32-le", "UTF-16")],
)  # fmt: skip
def test_other_encodings_are_named(tmp_path, encoding, said):
    file = tmp_path / "study.txt"
    file.write_text("ein Stück Käse\na house", encoding)
    with pytest.raises(ValueError, match=f"study.txt is not UTF-8 but.*{said}") as error:
        prompts.read([str(file)])
    assert "\n" not in str(error.value)


def test_a_nul_byte_is_said_to_be_one(tmp_path):
    file = tmp_path / "study.txt"
    file.write_text("ein Stück Käse\na\0house\n", "utf-8")
    with pytest.raises(ValueError, match=r"study.txt holds a NUL byte in line 2, which is no text"):
        prompts.read([str(file)])


@pytest.mark.parametrize("text", ["a red house " * 250_000, "qwzx" * 750_000])
def test_of_a_long_prompt_the_beginning_is_said(tmp_path, text):
    (tmp_path / "study.txt").write_text(f"{text}\n" * 2)
    with pytest.raises(ValueError, match=r"comes twice$") as error:
        prompts.read([str(tmp_path / "study.txt")])
    assert text[:50] in str(error.value) and len(str(error.value)) < 200


def test_prompts_of_one_slug_are_two():
    several = ["一座房子", "一把椅子", "a house", "a house!", "A house"]
    assert prompts.read(several) == several


def test_what_is_there_by_another_name_is_no_prompt(tmp_path):
    (tmp_path / "study.csv").touch()
    for path in (tmp_path, tmp_path / "study.csv"):
        with pytest.raises(ValueError, match=r"is no \.txt file, with a prompt a line"):
            prompts.read([str(path)])
    assert prompts.read(["either/or"]) == ["either/or"]
