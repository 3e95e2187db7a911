"""What a run logs while it goes on."""

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from dsd_jax.cli import run_args, validate
from dsd_jax.cli.logs import open_logs, read_log


def metrics(*losses, first=0):
    """Of seeds `first`, `first` + 1, ..."""
    return {first + i: {"loss": loss, "opacity": 0.5} for i, loss in enumerate(losses)}


def steps_of(path) -> list[tuple[int, list[str]]]:
    return [(line["step"], sorted(line["seeds"])) for line in read_log(path)]


def test_a_line_a_report(tmp_path):
    with open_logs(tmp_path, {}, {}) as log:
        log(metrics(0.25, float("nan")), 1, 1)
        log(metrics(0.125, 2.0), 9, 9)
    first, second = (json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines())
    assert first.keys() == {"step", "seconds", "seeds"}
    assert first["seeds"] == {
        "0": {"loss": 0.25, "opacity": 0.5},
        "1": {"loss": None, "opacity": 0.5},
    }
    assert second["step"] == 9 and second["seeds"]["1"]["loss"] == 2.0
    assert 0 <= first["seconds"] <= second["seconds"]


def test_after_a_kill_it_goes_on_from_the_checkpoints(tmp_path):
    """Seeds 0 and 1 were saved at step 4, seed 2, of another chunk, at none; a line was cut off."""
    path = tmp_path / "log.jsonl"
    with open_logs(tmp_path, {}, {}) as log:
        for step in (1, 4, 7):
            log(metrics(0.5, 0.5), step, step)
        log(metrics(0.5, first=2), 1, 8)
    seconds = read_log(path)[1]["seconds"]
    with path.open("a") as file:
        file.write('{"step": 2, "seconds": 3.0, "se')

    with open_logs(tmp_path, {}, {0: 4, 1: 4}) as log:
        assert steps_of(path) == [(1, ["0", "1"]), (4, ["0", "1"])]
        log(metrics(0.5, 0.5), 5, 5)
    assert steps_of(path) == [(1, ["0", "1"]), (4, ["0", "1"]), (5, ["0", "1"])]
    assert read_log(path)[2]["seconds"] >= seconds
    assert all(json.loads(text) for text in path.read_text().splitlines())

    with open_logs(tmp_path, {}, {0: 4, 1: 1}):
        assert steps_of(path) == [(1, ["0", "1"]), (4, ["0"])]
    with open_logs(tmp_path, {}, {}):
        assert path.read_text() == ""


def test_tensorboard_has_means_and_the_loss_of_each_seed(tmp_path, monkeypatch):
    import tensorboardX

    added = []

    class Board:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, name, value, step):
            added.append((name, value, step))

        def close(self):
            added.append("closed")

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Board)
    with open_logs(tmp_path, {}, {}) as log:
        log(metrics(1.0, 3.0, first=8), 7, 27)
    assert added == [
        ("loss", 2.0, 7), ("opacity", 0.5, 7), ("loss/seed_0008", 1.0, 7),
        ("loss/seed_0009", 3.0, 7), "closed",
    ]  # fmt: skip


def test_wandb_gets_the_same_curves_over_all_chunks(tmp_path, monkeypatch):
    said = []

    @contextmanager
    def init(**given):
        said.append(given)
        yield SimpleNamespace(log=lambda curves, step: said.append((curves, step)))
        said.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with open_logs(tmp_path, {"prompt": "a house"}, {}, wandb=True) as log:
        log(metrics(1.0, 3.0), 7, 27)
    name = tmp_path.name
    assert said == [
        {"project": "dsd_jax", "group": name, "name": name, "config": {"prompt": "a house"},
         "dir": str(tmp_path)},
        ({"loss": 2.0, "opacity": 0.5, "loss/seed_0000": 1.0, "loss/seed_0001": 3.0}, 27),
        "finished",
    ]  # fmt: skip


def test_wandb_is_asked_for_by_a_flag_and_must_be_installed(tmp_path, monkeypatch):
    args = run_args.RunArgs(out=tmp_path)
    assert not args.wandb
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_args.check_args(args) == [0, 1, 2, 3]
    with pytest.raises(ValueError) as caught:
        run_args.check_args(run_args.RunArgs(out=tmp_path, wandb=True))
    assert str(caught.value) == '--wandb needs wandb: pip install "dsd_jax[wandb]"'
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    validate.extra("wandb", "--wandb")
