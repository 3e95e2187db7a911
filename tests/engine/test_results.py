"""What a run shows and says of its seeds."""

import numpy as np

from dsd_jax.cli.reporter import seeds_sheet
from dsd_jax.engine.results import Scores, summary
from dsd_jax.export.pictures import GAP, LABEL_HEIGHT


def test_the_picture_that_seeds_were_made_from_stands_before_them():
    views = np.full((2, 3, 8, 8, 3), 100, np.uint8)
    alone = seeds_sheet(views, [4, 7], 8)
    beside = seeds_sheet(views, [4, 7], 8, np.full((16, 16, 3), 30, np.uint8))
    assert alone.shape == (LABEL_HEIGHT + 3 * 8 + 2 * GAP, 2 * 8 + GAP, 3)
    np.testing.assert_array_equal(beside[LABEL_HEIGHT:, 8 + GAP :], alone[LABEL_HEIGHT:])
    column = beside[LABEL_HEIGHT:, :8]
    assert (column[:8] == 30).all() and (column[8:] == 255).all()


def test_each_seed_gets_its_own_scores_and_steps():
    """In the order of the scores, in which a resumed run's chunks need not be."""
    scores = Scores({"diversity": 0.5}, [{"accepted": True}, {"accepted": False}])
    found = summary({9: 12, 3: 8}, {3: {"loss": 0.25}}, scores)
    assert found["diversity"] == 0.5
    assert found["seeds"] == {
        "9": {"steps": 12, "accepted": True},
        "3": {"steps": 8, "accepted": False, "loss": 0.25},
    }
