"""The judge's bank: near-duplicates, directions, and the way to disk and back."""

from pathlib import Path

import numpy as np
import pytest

from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import judge
from dsd_jax.metrics.diversity import cosine_similarity
from dsd_jax.metrics.nouns import category_of

AZIMUTHS = (0, 90, 180, 270)
ANY = {
    "limits": banks.Limits(0.2, 0.1, 0.3, 0.4, 0.5, 0.6),
    "whole": np.arange(80, dtype=np.float32),
}


def synthetic(rng, objects=60, categories=6, width=40, noise=0.5):
    """Views [o, 4, width] around a mean per category, shifted by direction; categories [o]."""
    names = [f"thing{i % categories}" for i in range(objects)]
    centre = 3 + rng.normal(size=(categories, 1, width))
    direction = rng.normal(size=(categories, 3, width))[:, [0, 1, 2, 1]]
    own = np.arange(objects) % categories
    views = centre[own] + direction[own] + noise * rng.normal(size=(objects, 1, width))
    return (views + 0.2 * rng.normal(size=views.shape)).astype(np.float32), names


@pytest.fixture(scope="module")
def bank():
    views, names = synthetic(np.random.default_rng(0))
    return banks.build_bank(views, names, np.zeros(60, bool), AZIMUTHS, dims=24, **ANY)


def test_near_duplicates_keep_the_first_of_a_chain():
    angle = np.radians([0, 10, 20, 90, 91])
    features = np.stack([np.cos(angle), np.sin(angle)], 1)
    drop = banks.near_duplicates(features, threshold=np.cos(np.radians(12)))
    # 20 degrees is near only to the dropped 10 degrees, so it stays.
    np.testing.assert_array_equal(drop, [False, True, False, False, True])


def test_direction_columns_take_the_four_sides_only():
    columns = banks.direction_columns([0, 45, 90, -90, 180.0, 360, 270.0, 359])
    sides = [(0, 0), (2, 1), (3, 1), (4, 2), (5, 0), (6, 1)]
    assert columns == sides


def test_direction_means_by_hand():
    """Every view counts alike, however long its features; both sides are one direction."""
    x, y, z = np.eye(3)
    views = np.array([[7 * x, 2 * y, z, 5 * z], [x, y, 3 * z, 4 * y]])
    means = banks.direction_means(views, AZIMUTHS)
    np.testing.assert_allclose(means, [x, 0.75 * y + 0.25 * z, z])
    with pytest.raises(ValueError, match="180"):
        banks.direction_means(views[:, :2], AZIMUTHS[:2])


def test_projection_is_orthonormal_and_keeps_cosines(bank):
    np.testing.assert_allclose(bank.projection.T @ bank.projection, np.eye(24), atol=1e-5)
    views, _ = synthetic(np.random.default_rng(0))
    means = views.mean(1)
    full, small = cosine_similarity(means, means), cosine_similarity(bank.features, bank.features)
    assert np.abs(full - small).max() < 0.02
    with pytest.raises(ValueError, match="dims 41"):
        banks.build_bank(views, ["a"] * 60, np.zeros(60, bool), AZIMUTHS, dims=41, **ANY)


def test_symmetric_objects_and_small_categories_have_no_front():
    views, names = synthetic(np.random.default_rng(1))
    symmetric = np.array([name == "thing2" for name in names])
    symmetric[7 : 7 + 6 * 7 : 6] = True  # of the ten of thing1, three keep their front
    bank = banks.build_bank(views, names, symmetric, AZIMUTHS, dims=8, min_fronts=4, **ANY)
    assert [bank.categories[c] for c in bank.fronted] == ["thing0", "thing3", "thing4", "thing5"]
    members = [i for i, name in enumerate(names) if name == "thing3"]
    expected = banks.direction_means(views[members], AZIMUTHS) @ bank.projection
    np.testing.assert_allclose(bank.view_means[1], expected, rtol=1e-4)


def test_no_fronts_at_all(tmp_path):
    views, names = synthetic(np.random.default_rng(1))
    bank = banks.build_bank(views, names, np.ones(60, bool), AZIMUTHS, dims=8, **ANY)
    banks.save_bank(bank, tmp_path / "bank.safetensors")
    assert banks.load_bank(tmp_path / "bank.safetensors").view_means.shape == (0, 3, 8)


def test_round_trip(bank, tmp_path):
    path = tmp_path / "deep" / "bank.safetensors"
    assert banks.save_bank(bank, path) == path.stat().st_size
    read = banks.load_bank(path)
    assert read.categories == bank.categories and read.nouns == bank.nouns
    np.testing.assert_array_equal(read.category, bank.category)
    np.testing.assert_array_equal(read.fronted, bank.fronted)
    assert (read.features * bank.features).sum(1).min() > 0.9995
    np.testing.assert_allclose(read.view_means, bank.view_means, rtol=1e-3, atol=1e-2)
    views, names = synthetic(np.random.default_rng(0))
    for category in set(names):
        votes = (judge.verdict(own, category, views).vote for own in (read, bank))
        np.testing.assert_allclose(*votes, atol=0.02)
    assert read.limits == bank.limits
    for name in ("alike", "whole", "grain", "holes", "bump_deg", "creased_share", "accepted"):
        np.testing.assert_array_equal(getattr(read, name), getattr(bank, name))
    assert [p.name for p in path.parent.iterdir()] == ["bank.safetensors"]


def test_size_of_a_full_bank(tmp_path):
    """2,704 objects of 384 categories, half of them with a front: under 2 MiB."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2704, 256)).astype(np.float32)
    bank = banks.Bank(
        categories=tuple(f"category {i}" for i in range(384)),
        category=np.arange(2704) % 384,
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
        projection=rng.normal(size=(1280, 256)),
        fronted=np.arange(192),
        view_means=rng.normal(size=(192, 3, 256)),
        nouns={f"noun phrase {i}": f"category {i % 384}" for i in range(1000)},
        alike=rng.random(2704, np.float32),
        whole=rng.random(2560, np.float32),
        grain=rng.random(384, np.float32),
        holes=rng.random(384, np.float32),
        bump_deg=rng.random(384, np.float32),
        creased_share=rng.random(384, np.float32),
        accepted=rng.random(384, np.float32),
        limits=banks.Limits(0.2, 0.1, 0.3, 0.4, 0.5, 0.6),
    )
    assert banks.save_bank(bank, tmp_path / "bank.safetensors") < 2 * 2**20


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="build_judge_bank"):
        banks.load_bank(tmp_path / "none.safetensors")
    path = tmp_path / "junk.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a judge's bank"):
        banks.load_bank(path)
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="format"):
        banks.load_bank(path)
    save_file({"a": np.zeros(1)}, path, {"format": "dsd_jax judge bank 1"})
    with pytest.raises(ValueError, match="bank 1', not 'dsd_jax judge bank 2': build it anew"):
        banks.load_bank(path)


def test_nearest_alike_by_hand():
    features = np.array([[1.0, 0], [0.6, 0.8], [0, 1], [1, 0]])
    found = banks.nearest_alike(features, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(found, [0.6, 0.8, 0.8, np.nan], rtol=1e-6)


def test_scores_of_categories():
    views, names = synthetic(np.random.default_rng(0))
    real = {"thing1": {"grain": 0.5, "bump_deg": 0.25}, "thing2": {"grain": None, "holes": None}}
    bank = banks.build_bank(views, names, np.zeros(60, bool), AZIMUTHS, real=real, dims=8,
                            **ANY)  # fmt: skip
    np.testing.assert_array_equal(bank.grain, [np.nan, 0.5, *[np.nan] * 4])
    np.testing.assert_array_equal(bank.bump_deg, [np.nan, 0.25, *[np.nan] * 4])
    assert np.isnan(bank.holes).all()


def test_packaged_bank():
    """What the package carries: under 2 MiB, and at home in the largest categories."""
    path = Path(banks.__file__).parents[1] / "assets/judge/bank.safetensors"
    if not path.is_file():
        pytest.skip("experiments/tools/build_judge_bank.py has not been run")
    assert path.stat().st_size < 2 * 2**20
    bank = banks.load_bank()
    for prompt, category in (("a house", "house"), ("a red car", "car"), ("two fish", "fish")):
        assert category_of(prompt, bank.nouns) == category
    for name, grain in (("house", 0.053), ("tree", 0.032)):
        assert bank.grain[bank.categories.index(name)] == pytest.approx(grain, rel=0.02)
    assert all(judge.has_front(bank, name) for name in ("car", "chair", "sofa", "fish"))
    unity = np.eye(bank.projection.shape[1])
    np.testing.assert_allclose(bank.projection.T @ bank.projection, unity, atol=2e-3)
