"""text3d.py --prompts: what becomes of several prompts in one command.

A run of two is in test_text3d.py; that they share what is compiled, in engine/test_generate.py.
"""

import json
import signal

import pytest
from programs import arguments, end, load_script, start, wait_for

from dsd_jax.cli import queue


@pytest.fixture(scope="module")
def text3d(quick_compilation):
    return load_script("text3d")


@pytest.fixture
def file(tmp_path):
    """Three prompts and a comment."""
    path = tmp_path / "prompts.txt"
    path.write_text("# three\na house\na red house # the second\n\nred\n")
    return path


def changed(folder) -> dict[str, int]:
    """When each file of a folder was last written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.slow
def test_killed_in_the_second_prompt_it_goes_on_from_there(file, tiny_prior_folder, tmp_path):
    out = tmp_path / "out"
    flags = ["--prompts", file, "--seeds", "0:2", "--steps", "8", "--out", out]
    program = start(tiny_prior_folder, *flags)
    wait_for(program, lambda: any(out.glob("a-red-house-*/checkpoints/*/1")))
    program.kill()
    end(program, -signal.SIGKILL)
    (first,) = out.glob("a-house-*")
    before = changed(first)
    assert "metrics.json" in before and not list(out.glob("red-*"))
    assert [row["state"] for row in rows_of(out)] == ["complete", "waiting", "waiting"]

    said = end(start(tiny_prior_folder, *flags))
    assert f"{first} is complete: nothing to resume" in said
    assert "3 of 3 are complete" in said
    assert changed(first) == before
    assert [row["state"] for row in rows_of(out)] == ["complete"] * 3


def rows_of(out) -> list[dict]:
    """What the overview says of each prompt."""
    return json.loads((out / "overview.json").read_text())["runs"]


class FakeJob:
    """A job whose folder a `fake_run` fills."""

    def __init__(self, folder):
        self.title, self.folder = folder.name, folder


def fake_run(job, plan, began, blocks) -> int:
    job.folder.mkdir(parents=True)
    metrics = {"interrupted": False, "diversity": 0.25, "fidelity": {"accepted": 0.5}}
    metrics |= {"seeds": {"3": {}}, "seconds": {"total": 7.4}}
    (job.folder / "metrics.json").write_text(json.dumps(metrics))
    return 0


@pytest.fixture
def run_all(monkeypatch, tmp_path, capsys):
    """(run of a job, titles) -> exit code, what was said, and the overview's rows."""
    monkeypatch.setattr(queue, "begin", lambda job: None if job.folder.exists() else "plan")

    def go(run, *titles):
        monkeypatch.setattr(queue, "run", run)
        jobs = {title: lambda title=title: made(title) for title in titles}
        code = queue.run_all(tmp_path, jobs, None, 0.0)
        return code, capsys.readouterr().err, rows_of(tmp_path)

    def made(title):
        if title == "unreadable":
            raise ValueError("its checkpoint\ncannot be read")
        return FakeJob(tmp_path / title)

    return go


def test_what_fails_does_not_stop_the_others(run_all, tmp_path):
    ran = []

    def run(job, *given):
        ran.append(job.title)
        if job.title == "b<b>":
            raise RuntimeError("out of memory")
        return fake_run(job, *given)

    code, said, rows = run_all(run, "a", "b<b>", "unreadable", "c")
    assert code == queue.FAILED == 1
    assert ran == ["a", "b<b>", "c"]
    assert "Traceback" in said and "error: b<b>: out of memory" in said
    assert "error: unreadable: its checkpoint cannot be read\n" in said
    assert said.endswith("2 of 4 are complete; failed: b<b>, unreadable\n")
    assert [row["state"] for row in rows] == ["complete", "failed", "failed", "complete"]
    assert rows[0] == {
        "title": "a", "state": "complete", "error": "", "folder": "a", "page": "a", "seeds": [3],
        "diversity": 0.25, "accepted": 0.5, "seconds": 7.4,
    }  # fmt: skip
    page = (tmp_path / "overview.html").read_text()
    assert "b&lt;b&gt;" in page and "b<b>" not in page and "failed: out of memory" in page
    assert "<dd>0.25</dd>" in page and "<dd>50%</dd>" in page and "<dd>7</dd>" in page

    code, said, rows = run_all(lambda job, *given: ran.append(job.title) or 0, "a", "b<b>", "c")
    assert code == 0 and ran[3:] == ["b<b>"]
    assert "3 of 3 are complete\n" in said


def test_ctrl_c_stops_all_and_the_overview_says_where(run_all):
    def run(job, *given):
        return 130 if job.title == "b" else fake_run(job, *given)

    code, _, rows = run_all(run, "a", "b", "c")
    assert code == 130
    assert [row["state"] for row in rows] == ["complete", "interrupted", "waiting"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", "a house"], "error: --prompt and --prompts exclude each other; give one"),
        (["--prompts", "none.txt"], "error: --prompts none.txt: there is no such file"),
        (["--max-memory-gb", "1e-6"], "error: one seed needs about 1."),
    ],
)
def test_bad_input_is_one_line(text3d, file, tiny_prior_folder, tmp_path, capsys, flags, said):
    out = tmp_path / "out"
    command = arguments(tiny_prior_folder, "--prompts", file, "--out", out, *flags)
    assert text3d.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert not out.exists()
