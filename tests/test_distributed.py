"""Several processes of this machine, over loopback: `generate`, and text3d.py --distributed."""

import json
import os
import signal
import socket
import subprocess
import sys

import chex
import pytest
from examples import own_prior
from programs import ROOT, arguments, end, fields, free_port, load_script, start, wait_for

import dsd_jax as dsd
from dsd_jax.cli import run_args
from dsd_jax.engine import hosts, loop

TOLERANCE = 1e-3
FLAGS = ["--seeds", "0:3", "--steps", "6", "--method", "sds"]
_GENERATE = """
import sys
from dsd_jax.engine import hosts
hosts.start(*sys.argv[1:4])
from test_distributed import made
made().save(sys.argv[4], meshes=False)
"""


def made() -> dsd.Objects:
    """Three red things, of a prior that is known exactly."""
    recipe = dsd.changed(
        dsd.with_method(dsd.recipes.quick, "sds"),
        steps=6, resolution=8, late_resolution=8, samples=4, levels=2, start_levels=2,
        log2_entries=8, width=8, occupancy_resolution=8, final_samples=4, turntable_frames=2,
        turntable_resolution=16, rounds=0,
    )  # fmt: skip
    return dsd.generate(own_prior.Flat(), "a red thing", range(3), recipe)


def test_generate_makes_the_objects_of_one_process_on_two(quick_compilation, tmp_path):
    """The last process has one seed and a filler; each writes its own seeds, the first the rest."""
    address, out = f"127.0.0.1:{free_port()}", tmp_path / "run"
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, "-c", _GENERATE, address]
    programs = [
        subprocess.Popen([*command, str(i), "2", out], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for i in range(2)
    ]  # fmt: skip
    said = [end(program) for program in programs]
    assert "optimising: 6 of 6, " in said[0] and "optimising" not in said[1]
    alone = made()
    objects = dsd.load_objects_of(out)
    assert objects.seeds == alone.seeds == [0, 1, 2]
    for ours, theirs in zip(objects, alone, strict=True):
        assert_close(ours.scene.params["field"], theirs.scene.params["field"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["diversity"] == pytest.approx(alone.scores().run["diversity"], abs=1e-3)
    assert (out / "seeds.png").stat().st_size > 0 and (out / "index.html").is_file()
    assert all((out / f"seed_000{seed}" / "turntable.mp4").is_file() for seed in range(3))


@pytest.fixture(scope="module")
def alone(quick_compilation, tiny_prior_folder, tmp_path_factory):
    """Three seeds in one process, this one."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)  # metrics are means over a block
        assert load_script("text3d").main(arguments(tiny_prior_folder, *FLAGS, "--out", out)) == 0
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


def assert_close(ours, theirs):
    chex.assert_trees_all_close(ours, theirs, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_make_the_objects_that_one_makes(processes, hosts_of, alone, tmp_path):
    """Three seeds: the last process has a filler only, or its second one is a filler."""
    programs = hosts_of(processes, tmp_path, "--preview-seconds", "0")
    said = [" ".join(end(program).split()) for program in programs]
    assert f"3 seeds over {processes} devices of {processes} processes" in said[0]
    assert all("seeds over" not in text for text in said[1:])
    assert_close(fields(tmp_path), fields(alone))
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
    wait_for(programs[0], lambda: any(tmp_path.glob("*/checkpoints/*/1")))
    for program in programs:
        program.terminate()
    for program in programs:
        end(program, 128 + signal.SIGTERM)
    assert not list(tmp_path.glob("*/metrics.json"))
    end(start(tiny_prior_folder, *FLAGS, "--out", tmp_path))
    assert_close(fields(tmp_path), fields(alone))


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
         "--processes must be a number from 1 to 100000, not 'x'"),
        *[(["--distributed", f"--coordinator={bad}", "--process-id", "1", "--processes", "2"],
           f"--coordinator {bad!r} is not HOST:PORT, such as 10.0.0.1:1234, with a port from 1 to ")
          for bad in ("h:99999", "h:0", "h:-1", "h:x", "h:", ":1234", "a b:1", "h:1/x", "h:²")],
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


def test_a_port_that_is_taken_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **_: pytest.fail("it began"))
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--coordinator: port {port}: Address already in use"):
            hosts.start(f"localhost:{port}", "0", "2")


def test_one_process_communicates_nothing():
    run_args.start_if_asked(["--prompt", "a house"])
    assert hosts.is_first()
    assert hosts.everyones(1, 2).tolist() == [[1, 2]]
    assert hosts.own_slice(3) == slice(0, 3)
