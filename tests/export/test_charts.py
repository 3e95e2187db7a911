"""The process in which surfaces are cut into charts."""

import subprocess
import sys

import numpy as np
import pytest

from dsd_jax.export import charts

# A unit cube; faces counter-clockwise from outside.
CORNERS = np.array([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
SQUARES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
FACES = np.array([[a, b, c] for s in SQUARES for a, b, c in (s[:3], (s[0], *s[2:]))])
NORMALS = (CORNERS - 0.5) / np.sqrt(0.75)


def test_a_cube_has_six_charts_of_one_area_that_do_not_overlap():
    atlas = charts.unwrap(CORNERS, FACES, NORMALS, 64)
    np.testing.assert_array_equal(atlas.source[atlas.faces], FACES)
    assert len(atlas.uv) == 24  # no square shares a corner with another
    assert atlas.uv.min() >= 0 and atlas.uv.max() <= 1
    a, b, c = np.moveaxis(atlas.uv[atlas.faces], 1, 0)
    areas = np.abs(np.linalg.det(np.stack([b - a, c - a], -1)))
    np.testing.assert_allclose(areas, areas[0], rtol=1e-4)
    assert 0.03 < areas[0] < 1 / 6
    low, high = (f(atlas.uv.reshape(6, 4, 2), 1) for f in (np.min, np.max))
    apart = ((high[:, None] <= low) | (low[:, None] >= high)).any(-1)
    assert (apart | np.eye(6, dtype=bool)).all()


def test_what_goes_wrong_there_is_one_line():
    message = r"its texture's charts failed with exit code 1: ValueError: [^\n]*$"
    with pytest.raises(ValueError, match=message):
        charts.unwrap(CORNERS, FACES, NORMALS[0], 64)


def test_that_process_does_without_jax():
    """Which would take it longer than its work, and want the accelerator for itself."""
    program = f"import runpy, sys; runpy.run_path({charts.__file__!r}); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]
