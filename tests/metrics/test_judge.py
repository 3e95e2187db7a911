"""Verdicts on features whose right answer is known by construction."""

import json

import numpy as np
import pytest

from dsd_jax.metrics import bank as banks
from dsd_jax.metrics import judge, real_scores
from dsd_jax.metrics.framing import Framing

AZIMUTHS = (0, 90, 180, 270)
WIDTH = 12
LIMITS = banks.Limits(vote=0.5, whole=-1.0, sideways=0.1, upwards=0.2, extent=0.6, relief=0.0)
ANY = {"limits": LIMITS, "whole": np.zeros(2 * WIDTH, np.float32)}


def axis(i, length=1.0):
    return length * np.eye(WIDTH, dtype=np.float32)[i]


def objects_of(category_axis, n, rng):
    """n objects [n, 4, WIDTH]: long along their category's axis; views lean on axes 8 to 10."""
    lean = np.stack([axis(8), axis(9), axis(10), axis(9)])
    noise = 0.05 * rng.normal(size=(n, 1, WIDTH)).astype(np.float32)
    return axis(category_axis, 5.0) + lean + noise


@pytest.fixture(scope="module")
def data():
    """Seven cars, seven houses, and three symmetric balls: views, categories, symmetric."""
    rng = np.random.default_rng(0)
    views = np.concatenate([objects_of(0, 7, rng), objects_of(1, 7, rng), objects_of(2, 3, rng)])
    names = ["car"] * 7 + ["house"] * 7 + ["ball"] * 3
    return views, names, np.array([name == "ball" for name in names])


@pytest.fixture(scope="module")
def bank(data):
    captions = [f"small {name}" for name in data[1][:-1]] + ["old globe"]
    return banks.build_bank(*data, AZIMUTHS, captions=captions, dims=WIDTH, **ANY)


def test_neighbours_and_votes(bank):
    rng = np.random.default_rng(1)
    query = np.concatenate([objects_of(0, 2, rng), objects_of(2, 1, rng)])
    found = judge.neighbours(bank, query)
    assert found[0] == ["car"] * 5
    assert found[2][:3] == ["ball"] * 3 and "ball" not in found[2][3:]
    assert judge.verdict(bank, "car", query).accepted.tolist() == [True, True, False]
    assert judge.verdict(bank, "ball", query).accepted.tolist() == [False, False, True]
    assert judge.neighbours(bank, query, k=1) == [["car"], ["car"], ["ball"]]
    with pytest.raises(ValueError, match="'unicorn'"):
        judge.verdict(bank, "unicorn", query)


def test_votes_worked_by_hand():
    """exp(0.9 / 0.1) against exp(0.7 / 0.1): e^2 to 1; each category has its nearest object."""
    cosines = np.array([[0.1, 0.9, 0.7, 0.5], [0.5, -np.inf, 0.5, 0.2]])
    nearest = judge.by_category(cosines, np.array([1, 0, 2, 1]))
    np.testing.assert_array_equal(nearest, [[0.9, 0.5, 0.7], [-np.inf, 0.5, 0.5]])
    vote, rival = judge.votes(nearest, 0)
    np.testing.assert_allclose(vote, [np.exp(2) / (1 + np.exp(2)), 0])
    assert rival.tolist() == [2, 1]
    np.testing.assert_allclose(
        judge.votes(nearest, np.array([1, 2]))[0], [1 / (1 + np.exp(4)), 0.5]
    )


def test_percentiles_worked_by_hand():
    """Of 0.5, 0.7, 0.8, 0.9: none is below 0.5, two are below 0.75, all below 0.95."""
    alike = np.array([0.8, 0.5, 0.9, 0.7])
    found = judge.percentiles(np.array([0.5, 0.75, 0.95, 0.1]), alike)
    np.testing.assert_allclose(found, [0, 0.5, 1, 0])
    assert np.isnan(judge.percentiles(np.array([0.5]), alike[:0])).all()


def test_within_the_frame():
    rows = [[0.05, 0.1, 0.7, 1], [0.2, 0.1, 0.7, 1], [0, 0.3, 0.7, 1], [0, 0, 0.5, 1], [0, 0, 1, 0]]
    limits = LIMITS._replace(relief=0.5)
    found = judge.within(Framing(*np.array(rows).T), limits)
    assert found.tolist() == [True, False, False, False, False]


def test_what_is_not_whole_or_not_in_its_frame_is_refused(bank):
    rng = np.random.default_rng(5)
    query = objects_of(0, 1, rng)
    picture = np.full((1, 4, 64, 64, 3), 0.8)
    centred, aside = picture.copy(), picture.copy()
    centred[:, :, 10:54, 10:54] = aside[:, :, 10:54, 32:54] = 0.2
    assert judge.verdict(bank, "car", query, centred).accepted.all()
    assert not judge.verdict(bank, "car", query, aside).framed.any()
    assert not judge.verdict(bank, "car", query, picture).accepted.any()
    # From one side neither can be told.
    assert judge.verdict(bank, "car", query[:, :1], aside[:, :1]).accepted.all()
    toward = np.concatenate([np.zeros(WIDTH), -np.ones(WIDTH)]).astype(np.float32)
    strict = bank._replace(whole=toward, limits=LIMITS._replace(whole=-1.5))
    assert judge.verdict(strict, "car", query).accepted.all()
    pieces = np.where(np.arange(4)[:, None] % 2, axis(0, 5.0), axis(5, 5.0))[None]
    assert not judge.verdict(strict, "car", pieces).whole.any()


def test_features_of_an_object_are_the_mean_of_its_views(bank):
    """One view far off among three good ones is outvoted only as far as the mean allows."""
    views = np.stack([axis(0, 5.0)] * 3 + [axis(1, 5.0)])[None]
    assert judge.verdict(bank, "car", views).accepted[0]
    views = np.stack([axis(1, 5.0)] * 3 + [axis(0, 5.0)])[None]
    assert not judge.verdict(bank, "car", views).accepted[0]


def test_similarity_is_the_cosine_to_the_nearest_of_the_category(bank):
    query = np.stack([np.stack([axis(0, 3.0), axis(8)]), np.stack([axis(1, 3.0), axis(8)])])
    cosines = judge.similarity(bank, "car", query)
    assert cosines[0] > 0.95 > 0.3 > cosines[1]
    cars = bank.features[bank.category == bank.categories.index("car")]
    mean = query.mean(1) @ bank.projection
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, [max(car @ u for car in cars) for u in unit], rtol=1e-5)
    with pytest.raises(ValueError, match="'unicorn'"):
        judge.similarity(bank, "unicorn", query)


def test_prompt_fidelity(bank):
    rng = np.random.default_rng(2)
    query = np.concatenate([objects_of(0, 3, rng), objects_of(1, 1, rng)])
    verdict = judge.prompt_fidelity(bank, "a red car with a house", query)
    assert verdict["category"] == "car" and verdict["reason"] is None
    assert verdict["per_seed"] == [True, True, True, False] and verdict["accepted"] == 0.75
    assert verdict["fidelity"] == np.mean(verdict["percentile"]) > 0
    assert verdict["percentile"][3] == 0 and verdict["vote"][3] < 0.5 < min(verdict["vote"][:3])
    assert verdict["rival"][3] == "house" and verdict["whole"] == verdict["framed"] == [True] * 4
    assert judge.prompt_fidelity(bank, "a globe", query)["category"] == "ball"
    alone = bank._replace(alike=np.full(len(bank.alike), np.nan))
    alone = judge.prompt_fidelity(alone, "a car", query)
    assert alone["accepted"] == 0.75 and alone["fidelity"] is None and "single" in alone["reason"]
    unknown = judge.prompt_fidelity(bank, "a unicorn", query)
    assert unknown["accepted"] is unknown["per_seed"] is unknown["fidelity"] is None
    assert "a unicorn" in unknown["reason"] and len(unknown["neighbours"]) == 4
    assert json.loads(json.dumps([verdict, unknown])) == [verdict, unknown]


def test_directions(bank):
    query = objects_of(0, 4, np.random.default_rng(3))
    assert judge.direction_score(bank, "car", query, AZIMUTHS) == 1.0
    assert judge.one_front_score(bank, "car", query, AZIMUTHS) == 1.0
    # Seen the other way round only the sides are right, and the back is a second front.
    turned = query[:, [2, 3, 0, 1]]
    assert judge.direction_score(bank, "car", turned, AZIMUTHS) == 0.5
    assert judge.one_front_score(bank, "car", turned, AZIMUTHS) == 0.0
    # Two faced: front, side, front, side; three of four are right.
    janus = query[:, [0, 1, 0, 1]]
    assert judge.direction_score(bank, "car", janus, AZIMUTHS) == 0.75
    assert judge.one_front_score(bank, "car", janus, AZIMUTHS) == 0.0
    # Eight views: the diagonal ones are not asked.
    eight = np.repeat(query, 2, axis=1)
    eight[:, 1::2] = 0
    assert judge.direction_score(bank, "car", eight, judge.AZIMUTHS_DEG) == 1.0


def test_directions_are_centred_on_the_category():
    """The centre counts both sides, and what all views share has no say."""
    means = np.array([[1.0, 0, 9], [0, 1, 9], [-1, 0, 9]])
    views = np.array([[0.3, 0.5, 9], [0.3, 0.6, 9], [-0.2, 0.4, 50]])
    # Centred: means (1, -.5), (0, .5), (-1, -.5); views (.3, 0), (.3, .1), (-.2, -.1, 41).
    np.testing.assert_array_equal(judge.nearest_direction(views, means), [0, 0, 2])
    np.testing.assert_array_equal(judge.looks_like_back(views, means), [False, False, True])


def test_directions_that_cannot_be_judged(bank):
    query = objects_of(0, 1, np.random.default_rng(3))
    assert judge.has_front(bank, "car") and not judge.has_front(bank, "ball")
    assert not judge.has_front(bank, "unicorn")
    with pytest.raises(ValueError, match="directions of 'ball'"):
        judge.direction_score(bank, "ball", query, AZIMUTHS)
    with pytest.raises(ValueError, match="azimuth 180"):
        judge.one_front_score(bank, "car", query[:, :2], AZIMUTHS[:2])
    with pytest.raises(ValueError, match="no view at azimuth"):
        judge.direction_score(bank, "car", query[:, :1], (45,))


def test_leave_one_out_is_a_loop_of_banks(data):
    """The score of each real object equals the judge's, from a bank without that object."""
    rng = np.random.default_rng(4)
    views, names, symmetric = data
    views = views + rng.normal(size=views.shape).astype(np.float32)
    right, hits, backs = [], [], []
    for i, name in enumerate(names):
        rest = np.arange(len(names)) != i
        bank = banks.build_bank(
            views[rest], [names[j] for j in np.flatnonzero(rest)], symmetric[rest], AZIMUTHS,
            dims=WIDTH, min_fronts=2, **ANY,
        )  # fmt: skip
        right.append(judge.verdict(bank, name, views[i : i + 1]).vote[0])
        if name == "car":
            hits.append(judge.direction_score(bank, name, views[i : i + 1], AZIMUTHS))
            backs.append(judge.one_front_score(bank, name, views[i : i + 1], AZIMUTHS))
    np.testing.assert_allclose(real_scores.votes(views, names), right, atol=1e-5)
    assert 0 < np.mean(hits) < 1
    assert real_scores.direction_scores(views[:7], AZIMUTHS) == pytest.approx(
        (np.mean(hits), np.mean(backs))
    )


def test_leave_one_out_by_other_views(data):
    """Cars shown as houses are taken for houses; the others are still known as what they are."""
    views, names, _ = data
    seen = np.concatenate([views[7:14], views[7:]])[:, 1:2]
    right = real_scores.votes(views, names, seen=seen) > 0.5
    np.testing.assert_array_equal(right, [False] * 7 + [True] * 10)


def test_table_of_real_scores(data):
    passes = np.arange(17) > 0
    scores = real_scores.table(*data, AZIMUTHS, passes=passes, least_vote=0.5, largest=2)
    assert scores["accepted"] == {"mean": pytest.approx(13 / 14), "car": 6 / 7, "house": 1.0}
    assert scores["accepted_single_view"] == {"mean": 1.0, "car": 1.0, "house": 1.0}
    assert scores["direction"] == {"car": 1.0} and scores["one_front"] == {"car": 1.0}
    assert set(scores["distance"]) == {"house", "car"}
    assert 0 < scores["distance"]["car"] < 0.01
