"""experiments/tools/bench.py in miniature: every row is there and counted right; nothing is timed.

Toybox stands for a prior with a camera, SD 2.1-base for one without; both are tiny here.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import TOOLS, load_script

from dsd_jax.models.architectures import ARCHITECTURES, Architecture
from dsd_jax.models.networks import build, unet_param_shapes, vae_param_shapes
from dsd_jax.priors import EMBEDDED

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = Architecture(
    {
        "sample_size": 4,
        "block_out_channels": [8],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "cross_attention_dim": 16,
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "in_channels": 4,
    },
    {"block_out_channels": [4, 8], "sample_size": 8, "norm_num_groups": 4},
    {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 5,
    },
)
S = jax.ShapeDtypeStruct
ODE = ("exact", "nodes", "table")


@pytest.fixture
def bench(monkeypatch, tiny_rgba_prior_folder):
    monkeypatch.syspath_prepend(TOOLS)
    module = load_script("bench")
    monkeypatch.setitem(ARCHITECTURES, "sd21-base", SMALL)
    monkeypatch.setitem(EMBEDDED, "toybox", tiny_rgba_prior_folder)
    return module


def products(jaxpr) -> float:
    """Operations of the matrix products and convolutions in a jaxpr, counted by hand."""
    total = 0.0
    for eqn in jaxpr.eqns:
        out = eqn.outvars[0].aval.shape if eqn.outvars else ()
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = [eqn.invars[0].aval.shape[axis] for axis in contracted]
            total += 2.0 * np.prod(out) * np.prod(depth)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            total += 2.0 * np.prod(out) * np.prod(kernel) / kernel[-1]
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            total += products(inner) if hasattr(inner, "eqns") else 0.0
    return total


def test_operations_are_those_of_the_products_and_little_else(bench):
    from benchmarks import work

    x, y = jnp.ones((8, 16)), jnp.ones((16, 32))
    assert work.operations(jnp.matmul, x, y) == 2 * 8 * 16 * 32
    (ready, *_) = [w.prepare() for w in work.ceilings(32, 64, jnp.float32)]
    assert ready.operations == 2 * 32**3
    assert ready.bytes == 3 * 4 * 32**2
    wide = {**SMALL.unet, "block_out_channels": [64], "sample_size": 16}
    networks = build(wide, SMALL.vae, SMALL.text_encoder)
    inputs = S((2, 16, 16, 4), "f4"), S((2,), "i4"), S((2, 5, 16), "f4")

    def unet(params, *inputs):
        return networks.unet.apply({"params": params}, *inputs)

    shapes = unet_param_shapes(networks.unet)
    by_hand = products(jax.make_jaxpr(unet)(shapes, *inputs).jaxpr)
    assert by_hand > 1e8
    assert work.operations(unet, shapes, *inputs) == pytest.approx(by_hand, rel=0.1)


@pytest.mark.slow
def test_operations_of_the_published_sizes(bench, monkeypatch):
    """0.804 TFLOP a sample of the UNet (padding included, which XLA leaves out)."""
    from benchmarks import work

    monkeypatch.undo()
    unet = build(*ARCHITECTURES["sd21-base"], dtype=jnp.bfloat16).unet
    inputs = S((1, 64, 64, 4), "f4"), S((1,), "i4"), S((1, 77, 1024), "f4")

    def forward(params, *inputs):
        return unet.apply({"params": params}, *inputs)

    counted = work.operations(forward, unet_param_shapes(unet), *inputs)
    assert counted == pytest.approx(0.804e12, rel=0.03)


def check_rows(rows):
    """Every number is finite and positive, and they agree with one another."""
    for row in rows:
        numbers = {k: v for k, v in row.items() if not isinstance(v, str)}
        assert len(numbers) == 9
        for name, value in numbers.items():
            assert np.isfinite(value) and value > 0, (row["work"], name, value)
        assert row["least_milliseconds"] <= row["milliseconds"] <= row["most_milliseconds"]
        assert row["ratio"] == pytest.approx(row["milliseconds"] / row["floor_milliseconds"])
        assert row["tflop_per_second"] == pytest.approx(
            row["operations"] / row["milliseconds"] / 1e9
        )


@pytest.mark.slow
def test_every_row_is_there(bench, tmp_path, capsys):
    out = tmp_path / "new" / "bench.json"
    assert bench.main(["--miniature", "--seeds", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = found["rows"]
    check_rows(rows)
    assert not found["skipped"]
    assert {row["with"] for row in rows} == {"jax"}
    named = [(row["model"], row["work"], row["size"]) for row in rows]
    assert len(set(named)) == len(named)
    assert [work for model, work, _ in named if not model] == [
        "matrix product", "copy", "empty program",
    ]  # fmt: skip
    expected = {
        ("unet forward", "batch 1"), ("unet forward", "batch 2"),
        ("vae encoder forward", "batch 1"), ("vae encoder forward + backward", "batch 1"),
        *((f"render {way}", "2 seeds") for way in ("forward", "forward + backward")),
        *((f"seed-iteration, ode {mode}", "2 seeds") for mode in ODE),
        *((f"ode kept as {mode}", "2 seeds") for mode in ODE[1:]),
        *((f"hash grid {way}", "256 points, 2 seeds")
          for way in ("forward", "backward", "backward, spread")),
        *((f"hash grid backward, {level} level{how}", "256 points, 2 seeds")
          for level in ("coarsest", "finest") for how in ("", ", spread")),
    }  # fmt: skip
    assert {(work, size) for model, work, size in named if model == "toybox"} == expected
    by_name = {(row["work"], row["size"]): row for row in rows}

    def operations(work, size="2 seeds"):
        return by_name[work, size]["operations"]

    assert operations("unet forward", "batch 2") == pytest.approx(
        2 * operations("unet forward", "batch 1"), rel=0.05
    )
    whole, table = operations("seed-iteration, ode exact"), operations("seed-iteration, ode table")
    assert whole > operations("seed-iteration, ode nodes") > table
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(rows)
    assert all(text.startswith("| ") and text.count("|") == 9 for text in printed)


@pytest.mark.slow
def test_a_step_of_a_prior_without_camera_asks_four_predictions(bench, tmp_path, capsys):
    """At t' and at t, and more on the way to t'; --scaling draws a picture of it."""
    from benchmarks import menu, networks, steps

    out = tmp_path / "scaling.json"
    flags = ["--model", "sd21-base", "--scaling", "--ode", "exact", "--seeds", "1"]
    assert bench.main(["--miniature", *flags, "--out", str(out)]) == 0
    row = json.loads(out.read_text())["rows"][-1]
    check_rows([row])
    prior = networks.load("sd21-base", jnp.float32)
    task = menu.make_task(prior, "sd21-base", menu.MINIATURE)
    assert 2 < row["operations"] / steps.evaluation(task) < 12
    assert "| 1 | " in capsys.readouterr().out
    assert steps.evaluation(task) == steps._evaluation(prior.networks.unet, 4, 5, 1)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_scaling_table(bench):
    from benchmarks import scaling

    def row(work, size, milliseconds):
        return {"model": "toybox", "work": work, "size": size, "milliseconds": milliseconds}

    rows = [
        row("unet forward", "batch 8", 1.0),
        row("seed-iteration, ode exact", "1 seed", 100.0),
        row("seed-iteration, ode table", "1 seed", 50.0),
        row("seed-iteration, ode exact", "16 seeds", 10.0),
    ]
    assert scaling.table(rows).splitlines() == [
        "| seeds | toybox, ode exact: seed-iterations/s | toybox, ode table: seed-iterations/s |",
        "| --- | --- | --- |",
        "| 1 | 10 | 20 |",
        "| 16 | 100 |  |",
    ]


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_said(bench, tmp_path, monkeypatch, capsys):
    """Rows that run out of memory, and those that may end too late."""
    from benchmarks import menu

    def too_large(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no more")

    out = tmp_path / "bench.json"
    flags = ["--miniature", "--only", "unet", "--out", str(out)]
    monkeypatch.setattr(menu, "unet", too_large)
    assert bench.main(flags) == 0
    assert "skipped: toybox, unet forward, batch 1, out of memory" in capsys.readouterr().err
    assert bench.main([*flags, "--minutes", "1e-9"]) == 0
    assert len(json.loads(out.read_text())["skipped"]) == 5
    assert "no time left of 1e-09 minutes" in capsys.readouterr().err


@pytest.mark.slow
def test_another_failure_is_said_and_fails(bench, monkeypatch, capsys):
    from benchmarks import menu

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel\nmore")

    monkeypatch.setattr(menu, "unet", broken)
    assert bench.main(["--miniature", "--only", "unet"]) == 1
    assert "batch 2, INTERNAL: no kernel\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--only", "unets"], "--only 'unets' is not one of cache, grid, iteration, render, unet"),
        (["--ode", "tables"], "--ode 'tables' is not one of exact, nodes, table; did you mean"),
        (["--seeds", "0"], "--seeds are numbers of seeds, at least 1, not 0"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--minutes", "-1"], "--minutes must not be negative, not -1"),
        (["--out", "rows.csv"], "--out rows.csv has to end in .json"),
    ],
)
def test_bad_input_is_one_line(bench, capsys, flags, said):
    assert bench.main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_missing_pytorch_is_said_in_one_line(bench, capsys, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert bench.main(["--torch"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: torch is not installed: pip install '.[parity]' or leave --torch"


def test_kernels_are_random_and_of_unit_gain(bench):
    from benchmarks.networks import random_weights

    vae = build(*SMALL).vae
    params = random_weights(vae_param_shapes(vae), jnp.bfloat16)
    kernel = params["encoder"]["mid_block"]["resnets_0"]["conv1"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    assert float(jnp.std(kernel) * (9 * 8) ** 0.5) == pytest.approx(1, rel=0.1)
    assert not jnp.any(params["encoder"]["conv_in"]["bias"])


def test_points_lie_in_the_ball_ray_by_ray(bench):
    from benchmarks.fields import points_on_rays

    from dsd_jax.recipe.presets import standard
    from dsd_jax.recipe.recipe import changed

    points = points_on_rays(changed(standard, samples=16), 1024)
    assert points.shape == (1024, 3)
    inside = jnp.linalg.norm(points, axis=-1) < 1 + 1e-3
    assert jnp.mean(inside) > 0.6
    steps = jnp.linalg.norm(jnp.diff(points.reshape(64, 16, 3), axis=1), axis=-1)
    assert jnp.max(steps) < 0.3
