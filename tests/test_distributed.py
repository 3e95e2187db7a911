"""text3d.py --distributed: several processes of this machine, over loopback."""

import json
import signal
import time

import numpy as np
import pytest
from programs import end, fields, free_port, start

from dsd_jax.engine import hosts

TOLERANCE = 1e-3
FLAGS = ["--seeds", "0:3", "--steps", "6"]


@pytest.fixture(scope="module")
def alone(tiny_prior_folder, tmp_path_factory):
    """Three seeds in one process."""
    out = tmp_path_factory.mktemp("alone")
    end(start(tiny_prior_folder, *FLAGS, "--out", out))
    return out


@pytest.fixture
def hosts_of(tiny_prior_folder):
    """(processes, --out, more flags) -> that many programs, of which all must go on together."""

    def run(processes, out, *flags):
        address = f"127.0.0.1:{free_port()}"
        together = ["--distributed", "--coordinator", address, "--processes", processes]
        return [
            start(tiny_prior_folder, *FLAGS, *together, "--process-id", i, "--out", out, *flags)
            for i in range(processes)
        ]

    return run


def assert_same_fields(ours, theirs):
    assert ours.keys() == theirs.keys()
    for seed, params in ours.items():
        for name, value in params.items():
            np.testing.assert_allclose(value, theirs[seed][name], atol=TOLERANCE)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_hosts_make_the_objects_that_one_makes(processes, hosts_of, alone, tmp_path):
    """Three seeds: the last process has a filler only, or its second one is a filler."""
    programs = hosts_of(processes, tmp_path, "--preview-seconds", "0")
    said = [" ".join(end(program).split()) for program in programs]
    assert f"3 seeds over {processes} devices of {processes} processes" in said[0]
    assert all("seeds over" not in text for text in said[1:])
    assert_same_fields(fields(tmp_path), fields(alone))
    (run,) = tmp_path.iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    expected = json.loads(next(alone.glob("*/metrics.json")).read_text())
    assert metrics["processes"] == processes
    assert metrics["diversity"] == pytest.approx(expected["diversity"], abs=1e-3)
    for seed, values in expected["seeds"].items():
        assert metrics["seeds"][seed]["loss"] == pytest.approx(values["loss"], rel=1e-2)
    assert (run / "seeds.png").stat().st_size > 0
    assert len(list(run.glob("events.out.tfevents*"))) == 1
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_of_two_hosts_goes_on_in_one_process(
    hosts_of, alone, tiny_prior_folder, tmp_path
):
    programs = hosts_of(2, tmp_path)
    while not list(tmp_path.glob("*/checkpoints/*/1")) and programs[0].poll() is None:
        time.sleep(0.001)
    for program in programs:
        program.terminate()
    for program in programs:
        end(program, 128 + signal.SIGTERM)
    assert not list(tmp_path.glob("*/metrics.json"))
    end(start(tiny_prior_folder, *FLAGS, "--out", tmp_path))
    assert_same_fields(fields(tmp_path), fields(alone))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--coordinator", "h:1"], "need --distributed besides"),
        (["--distributed", "--coordinator", "h:1"], "--distributed needs all of --coordinator"),
        (["--distributed", "--coordinator", "h", "--process-id", "0", "--processes", "2"],
         "--coordinator 'h' is not HOST:PORT"),
        (["--distributed", "--coordinator", "h:1", "--process-id", "2", "--processes", "2"],
         "--process-id must be 0 to 1, not '2'"),
        (["--distributed", "--coordinator", "h:1", "--process-id", "0", "--processes", "x"],
         "--processes must be a number from 1 on, not 'x'"),
        (["--distributed"], "say who takes part: --coordinator HOST:PORT --process-id I"),
    ],
)  # fmt: skip
def test_bad_flags_are_said_before_anything_starts(flags, said, monkeypatch):
    def none_found(**explicit):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", none_found)
    with pytest.raises(ValueError, match=said) as caught:
        run_args.start_if_asked(flags)
    assert "\n" not in str(caught.value)


def test_one_process_communicates_nothing():
    run_args.start_if_asked(["--prompt", "a house"])
    assert hosts.is_first()
    assert hosts.everyones(1, 2).tolist() == [[1, 2]]
    assert hosts.own_slice(3) == slice(0, 3)
