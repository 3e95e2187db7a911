"""Tables of scores, and the scatter plot."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.export import plots, tables
from dsd_jax.metrics.averages import means

ROWS = {"dsd": {"diversity": 0.123, "accepted": 1.0}, "sds": {"diversity": 0.04, "accepted": None}}


def test_markdown():
    text = tables.markdown(
        ROWS, {"accepted": ".0%", "diversity": ".2f", "of_ddim": ".2f"}, "method"
    )
    assert text.splitlines() == [
        "| method | accepted | diversity | of ddim |",
        "| --- | --- | --- | --- |",
        "| dsd | 100% | 0.12 | - |",
        "| sds | - | 0.04 | - |",
    ]


def test_optional_columns_that_no_row_has_are_left_out():
    columns = {"accepted": ".0%", "clip": ".2f", "of_ddim": ".2f"}
    assert list(tables.shown(columns, ROWS, ("accepted", "clip"))) == ["accepted", "of_ddim"]


def test_csv_keeps_every_digit(tmp_path):
    tables.save_csv(tmp_path / "a" / "t.csv", ROWS, ["diversity", "accepted"], "method")
    lines = (tmp_path / "a" / "t.csv").read_text().splitlines()
    assert lines == ["method,diversity,accepted", "dsd,0.123,1.0", "sds,0.04,"]


def test_means_leave_out_what_is_missing():
    found = means([{"a": 1.0, "b": None}, {"a": 2.0, "b": None, "c": 3}])
    assert found == {"a": pytest.approx(1.5), "b": None, "c": 3}


def test_scatter_has_a_colour_a_name(tmp_path):
    points = {"dsd": (0.3, 0.9), "sds": (0.1, 1.0)}
    plots.save_scatter(tmp_path / "p.png", {"fidelity": points, "similarity": points}, "diversity")
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (np.abs(picture - colour).sum(-1) < 9).sum() > 100
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
