"""What studies keep of meshes, and say of them."""

import jax
import numpy as np
import pytest
import trimesh
from programs import SMALL_MESH

from dsd_jax.export.scenes import SavedScene
from dsd_jax.fields.radiance import HashGridField, Stage
from dsd_jax.metrics.bank import load_bank
from dsd_jax.rendering.cameras import AZIMUTHS_DEG, ring
from dsd_jax.rendering.scene import Scene
from dsd_jax.studies import meshes

CAMERAS = ring(AZIMUTHS_DEG, 20, 2.7, 40)


def ball(floor: float) -> SavedScene:
    """A soft ball, as fields are at first; empty where the floor is high."""
    field = HashGridField(
        levels=2, log2_entries=8, base_resolution=16, growth=1.447, width=8, blob_scale=6.0,
        colour_std=0.0, density_floor=floor, start_levels=1,
    )  # fmt: skip
    scene = Scene(field)
    return SavedScene(scene, scene.init(jax.random.key(0)), Stage(1.5, 1.0))


@pytest.fixture(scope="module")
def kept(quick_compilation):
    """Of a ball, a lost seed and an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "SETTINGS", SMALL_MESH)
        yield meshes.with_points([ball(1.0), None, ball(1e9)], CAMERAS)


def test_what_is_kept(kept):
    assert np.isfinite(kept["mesh_iou"]).tolist() == [True, False, False]
    assert kept["mesh_iou"][0] > 0.9 and kept["watertight"][0] == kept["parts"][0] == 1
    assert kept["clay"].shape == (3, 8, 192, 192) and kept["clay"].dtype == np.uint8
    assert np.ptp(kept["clay"][0]) > 100 and not kept["clay"][1:].any()
    assert np.isnan(kept["points"][1:]).all()
    radii = np.linalg.norm(kept["points"][0], axis=1)
    assert radii.std() < 0.1 * radii.mean()


def test_what_is_said(kept):
    left, bank = np.array([True, True, True]), load_bank(name="clay")
    told = meshes.scores(kept, left, "house", bank)
    assert told["mesh_iou"] == kept["mesh_iou"][0] and told["parts"] == told["one_part"] == 1
    assert told["bump"] == told["bump_deg"] / bank.bump_deg[bank.categories.index("house")]
    assert told["clay"] in (0, 1) and told["clay_over_real"] >= 0
    assert meshes.COLUMNS.keys() <= told.keys()
    assert meshes.scores(kept, left, None, bank)["bump"] is None
    assert meshes.scores(kept, ~left, "house", bank) == {}
    assert meshes.scores({"views": left}, left, "house", bank) == {}


def test_points_of_what_is_seen():
    """Of a box that looks halfway out of a larger one: an end and four half sides of 0.25."""
    outer, inner = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((0.5, 0.5, 0.5))
    inner.apply_translation([0.5, 0, 0])
    both = trimesh.util.concatenate([outer, inner])
    points = meshes.seen_points(both.vertices, both.faces)
    assert points.shape == (10_000, 3)
    outside = np.abs(points).max(1) > 0.47
    assert outside.mean() > 0.99
    assert (points[:, 0] > 0.52).mean() == pytest.approx((0.25 + 4 * 0.5 * 0.23) / 6.5, abs=0.015)
    np.testing.assert_array_equal(points, meshes.seen_points(both.vertices, both.faces))
