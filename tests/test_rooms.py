"""The rooms of the package: imports run downwards, files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "dsd_jax").rglob("*.py"))


def test_imports_run_downwards():
    """As the contract in pyproject.toml has it, by import-linter."""
    pytest.importorskip("importlinter")
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports; exit(lint_imports())",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_files_stay_short():
    long = {str(f): n for f in FILES if (n := len(f.read_text("utf-8").splitlines())) > 300}
    assert not long


def test_functions_take_few_arguments():
    many = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                own = [one for one in given if one.arg not in ("self", "cls")]
                many += [f"{file.name}:{node.name}"] * (len(own) > 8)
    assert len(many) < 10, many
