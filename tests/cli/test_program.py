"""The entry point `dsd`, the starters in experiments/, and what text3d's command line says."""

import os
import re
import subprocess
import sys

import pytest
from programs import EXPERIMENTS, ROOT, load_script

from dsd_jax.cli import program, text3d, validate
from dsd_jax.recipe.presets import PRESETS, quick
from dsd_jax.recipe.recipe import changed, numbers, with_method

COLUMNS = 100


@pytest.fixture
def dsd(monkeypatch, capsys):
    """(words) -> exit code, stdout, stderr of `dsd`; JAX is set up already."""
    monkeypatch.setattr(sys, "argv", ["dsd"])
    monkeypatch.setattr(validate, "set_up_jax", lambda argv: None)
    monkeypatch.setenv("COLUMNS", str(COLUMNS))

    def run(*words):
        try:
            code = program.main(words)
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


# ---- dsd ---------------------------------------------------------------------------------------


def test_alone_it_lists_the_programs_with_a_line_each(dsd):
    code, said, _ = dsd()
    assert code == 0 and (code, said) == dsd("--help")[:2] == dsd("help")[:2]
    listed = re.findall(r"^  ([a-z0-9-]+)  +\S.*$", said, re.MULTILINE)
    assert listed == list(program.PROGRAMS) and "text3d" in listed
    assert all(len(line) <= COLUMNS for line in said.splitlines())


def test_an_unknown_program_is_refused_with_the_nearest(dsd):
    code, said, errors = dsd("text2d", "--prompt", "a house")
    assert code == program.BAD_INPUT and said == ""
    assert errors == ("error: dsd text2d: no such program; did you mean text3d?; dsd --help\n")


def test_it_says_its_version(dsd):
    from dsd_jax import __version__

    assert dsd("--version") == (0, f"dsd_jax {__version__}\n", "")


def test_words_lists_what_toybox_knows(dsd):
    code, said, _ = dsd("words")
    words = said.splitlines()
    assert code == 0 and words == sorted({*words}) and len(words) > 380
    assert {"house", "chair", "car"} <= {*words}
    code, said, _ = dsd("words", "--all")
    counts = [int(line.split()[-1]) for line in said.splitlines()]
    assert code == 0 and len(counts) > 384 and counts == sorted(counts)[::-1]


def test_a_reader_that_has_had_enough_is_no_error():
    """As `dsd words --all | head -1`."""
    command = [sys.executable, "-c", "import dsd_jax.cli.program as p; p.main(['words', '--all'])"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""


def test_every_program_has_a_starter_and_every_starter_a_program():
    modules = {module for module, _ in program.PROGRAMS.values()}
    assert {path.stem for path in EXPERIMENTS.glob("*.py")} == modules
    for module in modules:
        text = (EXPERIMENTS / f"{module}.py").read_text()
        assert f'sys.exit(start("{module}"))' in text and len(text.splitlines()) <= 15
        assert f"python experiments/{module}.py --help" in text
        found = load_script(module)
        assert callable(found.main)
        assert text.splitlines()[0].rstrip(".") in f'"""{found.__doc__}'.splitlines()[0]


def test_of_a_long_line_the_beginning_and_the_mend_are_said(capsys):
    text = "a red house " * 250_000
    assert program.refuse(f"--prompt {text!r} is too long; give a shorter one") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --prompt 'a red house") and said.count("\n") == 1
    assert said.endswith(" is too long; give a shorter one\n") and len(said) < 1100


# ---- text3d ------------------------------------------------------------------------------------


def test_help_fits_80_lines(dsd):
    code, said, _ = dsd("text3d", "--help")
    lines = [len(line) for line in said.splitlines()]
    assert code == 0 and sum(max(1, -(-length // COLUMNS)) for length in lines) <= 80
    assert said.startswith("usage: dsd text3d ")
    for name in PRESETS:
        assert re.search(rf"--preset STR[^-]*\b{name}\b", said)
    flags = "prompt prompts seeds steps preset method prior out devices precision guidance-scale"
    assert all(f"--{name} " in said for name in flags.split())
    assert "--help-all" in said and "--method.*" in said
    assert "--coordinator" not in said and "--wandb" not in said


def test_help_all_lists_every_number_of_the_recipe_once(dsd):
    code, said, _ = dsd("text3d", "--help-all", "--method", "asd")
    listed = re.findall(r"^(?:│ |  )(--[a-z][a-z0-9.-]*)", said, re.MULTILINE)
    parts = [(part, name) for part, name, _ in numbers(with_method(quick, "asd")) if part]
    wanted = [f"--{part}.{name}".replace("_", "-") for part, name in parts]
    assert code == 0 and [flag for flag in listed if "." in flag] == wanted
    assert len({*listed}) == len(listed) and {"--coordinator", "--wandb"} <= {*listed}


def test_the_defaults_shown_are_those_of_the_preset_and_of_the_method(dsd):
    said = dsd("text3d", "--help-all", "--preset", "best", "--method=sdi")[1]
    said = " ".join(said.replace("│", " ").split())
    assert "--steps INT Optimisation steps. (default: 1500)" in said
    assert re.search(r"--render\.samples INT [^(]*\(default: 48\)", said)
    assert "--method.inversion-steps" in said and "--method.eta " not in said


def test_steps_and_guidance_scale_reach_the_recipe():
    def recipe(*flags):
        return load_script("text3d").parse(["--preset", "quick", *flags])[1]

    assert recipe() == quick
    assert recipe("--steps", "7", "--guidance-scale", "3") == changed(
        quick, steps=7, guidance_scale=3.0
    )
    assert recipe("--method.guidance-scale", "3") == changed(quick, guidance_scale=3.0)
    assert recipe("--samples", "5") == recipe("--render.samples", "5") != quick
    assert recipe("--method", "sds", "--guidance-scale=9") == with_method(
        quick, "sds", guidance_scale=9.0
    )


@pytest.mark.parametrize(
    ("variable", "platforms"),
    [("JAX_PLATFORMS", "cuda"), ("JAX_PLATFORMS", "cpu,tpu"), ("JAX_PLATFORM_NAME", "perhaps")],
)
def test_a_kind_of_device_that_is_not_there_is_one_line(variable, platforms):
    environment = os.environ | {"PYTHONPATH": str(ROOT), variable: platforms}
    command = [sys.executable, str(EXPERIMENTS / "text3d.py"), "--prompt", "a house"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("I", "W"))]
    said = f"{variable}={platforms}: there is no such device; leave it out, or say cpu"
    assert line == f"error: {said}"


def test_ctrl_c_before_the_first_step_is_one_line(monkeypatch, capsys):
    def main(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(text3d, "main", main)
    monkeypatch.setattr(validate, "set_up_jax", lambda argv: None)
    assert program.start("text3d", []) == 130
    assert capsys.readouterr().err == "stopped\n"
