"""What every field may be asked: of dsd_jax's own, and of one of the user's own."""

import dataclasses
import tempfile
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_jax.export.scenes import SavedScene, load_scene, save_scene
from dsd_jax.fields.base import Field, completed, uncompleted
from dsd_jax.fields.radiance import HashGridField, RadianceField, Stage, truncated_exp
from dsd_jax.rendering.cameras import orbit
from dsd_jax.rendering.scene import Scene

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = {"levels": 3, "log2_entries": 10, "base_resolution": 4, "width": 8}


@dataclass(frozen=True)
class Voxels:
    """A grid of densities and colours, nearest neighbour; only what a field must have."""

    cells: int = 4

    def init(self, key):
        return jax.random.normal(key, (self.cells,) * 3 + (4,))

    def apply(self, params, points):
        at = jnp.int32((jnp.clip(points.T, -1, 1) + 1) * 0.5 * (self.cells - 1) + 0.5)
        raw = params[tuple(at)]
        density = jnp.where(jnp.sum(points * points, -1) <= 1, jax.nn.softplus(raw[:, 0]), 0)
        return density, jax.nn.sigmoid(raw[:, 1:])


@dataclass(frozen=True)
class Growing(Voxels):
    """The same, which says more: its density grows with the progress."""

    resolution: int = 7

    def apply(self, params, points, stage=None):
        density, colour = super().apply(params, points)
        return density * (1.0 if stage is None else stage["part"]), colour

    def stage(self, progress, final=False):
        return {"part": 1.0 if final else progress}


FIELDS = {
    "hash grid": HashGridField(**SMALL),
    "opening hash grid": HashGridField(**SMALL, start_levels=1, density="softplus"),
    "the user's own": completed(Voxels()),
    "the user's own, growing": completed(Growing()),
}


@pytest.fixture(params=FIELDS.values(), ids=FIELDS.keys())
def field(request):
    return request.param


def points(n=300):
    return jax.random.uniform(jax.random.key(0), (n, 3), minval=-1, maxval=1)


def test_densities_and_features_of_any_field_at_any_stage(field):
    params, x = field.init(jax.random.key(0)), points()
    inside = np.linalg.norm(x, axis=-1) <= 1

    @jax.jit
    def at(progress):
        return field.apply(params, x, field.stage(progress))

    for density, features in (field.apply(params, x), at(0.3), at(1.0)):
        assert density.shape == (300,) and features.shape[0] == 300 and features.shape[1] >= 3
        assert density.dtype == features.dtype == jnp.float32
        assert np.all(density >= 0) and not np.any(density[~inside])
        assert np.all((features[:, :3] >= 0) & (features[:, :3] <= 1))
    whole = field.apply(params, x, field.stage(1.0, final=True))
    for a, b in zip(whole, field.apply(params, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_said_of_any_field(field):
    assert hash(field) == hash(dataclasses.replace(field))
    assert completed(field) is field
    params = field.init(jax.random.key(0))
    groups = field.parameter_groups(params)
    assert jax.tree.structure(groups) == jax.tree.structure(params)
    assert set(jax.tree.leaves(groups)) <= {"grid", "mlp"}
    stages = [field.stage(0.2), field.stage(1.0), field.stage(0.2, final=True)]
    assert len({jax.tree.structure(stage) for stage in stages}) == 1
    assert 1 <= field.resolution_at(stages[-1]) <= field.resolution


def test_stage_of_a_hash_grid_by_hand():
    """Levels 4 to 12 over the first half; the floor from 0.5 to 0.9."""
    field = HashGridField(levels=12, start_levels=4, levels_until=0.5)
    stages = [field.stage(progress) for progress in (0, 0.25, 0.5, 1)]
    assert [float(stage.open_levels) for stage in stages] == [4, 8, 12, 12]
    got = [float(field.stage(progress).floor_part) for progress in (0, 0.5, 0.7, 0.9, 1)]
    np.testing.assert_allclose(got, [0, 0, 0.5, 1, 1], atol=1e-6)
    late = dataclasses.replace(field, floor_from=0.8)
    np.testing.assert_allclose(late.stage(0.85).floor_part, 0.5, atol=1e-6)
    final = field.stage(0.25, final=True)
    assert float(final.open_levels) == 8 and final.floor_part == 1.0
    assert HashGridField(levels=12, start_levels=12).stage(0.0).open_levels is None
    assert HashGridField().stage(1.0, final=True) == Stage(None, 1.0)


def test_a_stage_may_be_traced():
    field, progress = HashGridField(levels=12, start_levels=4), jnp.linspace(0, 1, 7)
    together = jax.jit(jax.vmap(field.stage))(progress)
    for i, p in enumerate(progress):
        alone = field.stage(p)
        assert float(together.open_levels[i]) == float(alone.open_levels)
        np.testing.assert_allclose(together.floor_part[i], alone.floor_part, atol=1e-7)


def test_cells_of_the_finest_open_level():
    field = HashGridField(levels=4, base_resolution=16, growth=1.5)
    assert field.resolution == 54
    assert field.resolution_at(None) == field.resolution_at(Stage(None, 1.0)) == 54
    found = [field.resolution_at(Stage(levels, 1.0)) for levels in (0.0, 1.0, 1.25, 3.5, 9.0)]
    assert found == [16, 16, 24, 54, 54]


def test_groups_of_a_hash_grid():
    field = HashGridField(**SMALL, hidden_layers=2)
    params = field.init(jax.random.key(0))
    groups = field.parameter_groups({"field": params})["field"]
    assert groups == field.parameter_groups(params)
    assert set(groups.pop("HashGrid_0").values()) == {"grid"}
    assert set(groups) == {"Dense_0", "Dense_1", "Dense_2", "colour"}
    assert set(jax.tree.leaves(groups)) == {"mlp"}


def test_a_hash_grid_is_its_module():
    """The same parameters from the same key, and the same numbers at a stage."""
    field = HashGridField(**SMALL, density_floor=2.0)
    module = RadianceField(
        **SMALL, growth=1.5, blob_scale=4.0, density_activation=truncated_exp, density_floor=2.0,
        colour_std=1.0,
    )  # fmt: skip
    assert field.module == module
    params = module.init(jax.random.key(3), jnp.zeros((1, 3)))
    for a, b in zip(*map(jax.tree.leaves, (params["params"], field.init(jax.random.key(3)))),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    noisy = jax.tree.map(lambda p: p + 0.1, params)
    for stage, parts in ((None, {}), (Stage(1.5, 0.25), {"open_levels": 1.5, "floor_part": 0.25})):
        theirs = module.apply(noisy, points(), **parts)
        for a, b in zip(field.apply(noisy["params"], points(), stage), theirs, strict=True):
            np.testing.assert_array_equal(a, b)


FINEST = "--field.base-resolution, --field.levels, --field.growth"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"levels": 0}, "--field.levels must be at least 1, not 0"),
        ({"log2_entries": 0}, "--field.log2-entries must be at least 1, not 0"),
        ({"hidden_layers": -1}, "--field.hidden-layers must be at least 1, not -1"),
        ({"growth": 0.9}, "--field.growth must be at least 1, not 0.9"),
        ({"levels": 99999}, "--field.levels must be at most 64, not 99999"),
        ({"log2_entries": 60}, "--field.log2-entries must be at most 28, not 60"),
        ({"growth": 64.0}, f"{FINEST} must end at 2^20 cells or fewer, not at 2^33.6"),
        ({"levels": 60, "growth": 1.5}, f"{FINEST} must end at 2^20 cells or fewer, not at 2^38.1"),
        ({"density_floor": -1.0}, "--field.density-floor must not be negative, not -1.0"),
        ({"levels_until": 1.5}, "--field.levels-until must lie in 0..1, not 1.5"),
        ({"floor_from": -0.1}, "--field.floor-from must lie in 0..1, not -0.1"),
        ({"density": "relu"}, "--field.density must be softplus or exp, not relu"),
    ],
)
def test_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises(ValueError) as refused:
        HashGridField(**numbers)
    assert str(refused.value) == message


def test_a_field_is_completed_with_what_it_lacks():
    voxels = completed(Voxels())
    assert uncompleted(voxels) == Voxels() and voxels == completed(Voxels())
    assert voxels != completed(Voxels(5))
    assert voxels.resolution == voxels.resolution_at(None) == Field.resolution == 32
    assert voxels.stage(0.5) is None
    assert voxels.parameter_groups({"a": jnp.zeros(2), "b": [jnp.zeros(1)]}) == {
        "a": "grid", "b": ["grid"],
    }  # fmt: skip
    growing = completed(Growing())
    assert growing.resolution == growing.resolution_at(growing.stage(0.0)) == 7
    params = growing.init(jax.random.key(0))
    half, whole = (growing.apply(params, points(), growing.stage(p))[0] for p in (0.5, 1.0))
    np.testing.assert_allclose(2 * half, whole, rtol=1e-6)


def test_a_subclass_of_field_inherits_what_it_leaves_out():
    @dataclass(frozen=True)
    class Fog(Field):
        def init(self, key):
            return jnp.zeros(())

        def apply(self, params, points, stage=None):
            inside = jnp.sum(points * points, -1) <= 1
            return jnp.exp(params) * inside, jnp.full(points.shape, 0.5)

    fog = Fog()
    assert completed(fog) is fog and uncompleted(fog) is fog
    assert fog.resolution == 32 and fog.stage(0.1) is None
    assert fog.parameter_groups(fog.init(None)) == "grid"


def test_what_is_no_field_is_refused_in_one_line():
    @dataclass
    class Melting:
        init, apply = Voxels.init, Voxels.apply

    with pytest.raises(TypeError, match="a field needs init, which float does not have"):
        completed(0.5)
    with pytest.raises(TypeError, match="hashable: make Melting a frozen dataclass of numbers"):
        Scene(Melting())


@settings(max_examples=6)
@given(
    cells=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
    background=st.sampled_from(["grey", "white", "colour", "directional"]),
    grown=st.none() | st.floats(0.125, 1, width=32) | st.just(0.0),
)
def test_a_scene_of_voxels_renders_and_comes_back_from_disk(cells, seed, background, grown):
    own = Voxels(cells) if grown is None else Growing(cells)
    scene = Scene(own, background)
    stage = None if grown is None else {"part": grown}
    saved = SavedScene(scene, scene.init(jax.random.key(seed)), stage)
    with tempfile.TemporaryDirectory() as folder:
        save_scene(folder, saved)
        loaded = load_scene(folder, own)
        with pytest.raises(ValueError, match=rf"is of a \S+:{type(own).__name__}, which must be"):
            load_scene(folder)
        with pytest.raises(ValueError, match="is of another field"):
            load_scene(folder, dataclasses.replace(own, cells=cells + 1))
    assert loaded.scene == scene and loaded.stage == stage
    camera = orbit(0.3, 0.2, 2.7, 0.7)
    ours, theirs = (
        one.render(camera, height=4, width=4, samples_per_ray=4) for one in (loaded, saved)
    )
    np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    assert ours.rgb.shape == (4, 4, 3) and np.all((ours.rgb >= 0) & (ours.rgb <= 1 + 1e-6))
    assert np.all(np.isfinite(ours.rgb)) and (grown == 0 or float(ours.opacity.max()) > 0)
