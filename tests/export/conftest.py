"""A run with its page."""

import pytest
from gallery_run import make_run

from dsd_jax.export.gallery import write_gallery


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With a page, in a folder whose name is not easy for URLs."""
    folder = make_run(tmp_path_factory.mktemp("a run 家 #1") / "a-red-house-1a2b3c4d")
    assert write_gallery(folder) == folder / "index.html"
    return folder
