"""The viewer of a run that goes on."""

import jax
import numpy as np
import pytest

from dsd_jax.cli import live_viewer
from dsd_jax.engine.generate import initial_states
from dsd_jax.engine.loop import Progress


class FakeViewer:
    """What `Viewer` does for a run, without a server."""

    def __init__(self, exhibits, port, chosen):
        self.exhibits, self.port, self.chosen, self.news = exhibits, port, chosen, 0
        FakeViewer.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.port = None

    def refresh(self):
        self.news += 1


@pytest.fixture
def viewer(monkeypatch):
    monkeypatch.setattr(live_viewer, "Viewer", FakeViewer)
    return lambda: FakeViewer.last


def test_the_chosen_seed_is_copied_after_every_block(task, viewer):
    chunks, said = ([4, 7], [9, 9]), []
    states = {tuple(chunk): initial_states(task, chunk) for chunk in chunks}
    growth = live_viewer.show_growing([4, 7, 9], task.recipe, 8123, said.append)
    with growth as show:
        shown = viewer()
        assert shown.port == 8123 and shown.chosen == "seed 4" and "8123" in said[0]

        def block(chunk):
            show(chunk, Progress(states[tuple(chunk)], 1, {}, 0.1))
            return [exhibit.live() for exhibit in shown.exhibits], shown.news

        (four, seven, nine), news = block([4, 7])
        assert seven is nine is None and news == 1
        assert_is_row(four, states[4, 7], 0)
        shown.chosen = "seed 7"
        (_, seven, _), news = block([4, 7])
        assert_is_row(seven, states[4, 7], 1)
        assert news == 2 and four.scene == seven.scene == task.recipe.scene
        _, news = block([9, 9])  # it is not among them
        assert news == 2
        shown.chosen = "none, meshes only"
        assert block([4, 7])[1] == 2
        shown.chosen = "seed 9"
        (_, _, nine), _ = block([9, 9])
        assert_is_row(nine, states[9, 9], 0)
    assert shown.port is None


def assert_is_row(live, states, i):
    """Copies on the host: the next block is given the states' own memory."""
    ours = jax.tree.leaves((live.params, live.occupancy))
    theirs = jax.tree.leaves((states.params, states.occupancy))
    for own, rows in zip(ours, theirs, strict=True):
        assert type(own) is np.ndarray
        np.testing.assert_array_equal(own, rows[i])
