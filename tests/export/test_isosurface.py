"""Surfaces of fields whose shape is known."""

from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from scipy.interpolate import interpn

from dsd_jax.export import isosurface
from dsd_jax.export.field_grid import ExportedField, density_grid, field_views, occupancy_of
from dsd_jax.rendering.cameras import camera_at, rays, ring

pytestmark = pytest.mark.usefixtures("quick_compilation")
CAMERAS = ring([0, 120, 240], 20, 2.7, 40)


def balls(params, points):
    """Balls of matter: params is [n, 5], of each the centre, the radius and the density."""
    centres, radii, densities = params[:, :3], params[:, 3], params[:, 4]
    away = jnp.linalg.norm(points[:, None] - centres, axis=-1)
    inside = 1 / (1 + jnp.exp((away - radii) * 60))
    return jnp.sum(densities * inside, 1), jnp.full((len(points), 3), 0.5)


def of(*rows):
    return ExportedField(balls, jnp.array(rows, jnp.float32), 32)


def volume(vertices, faces):
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return np.einsum("fi,fi->", a, np.cross(b, c)) / 6


def test_a_ball_is_round_closed_and_turned_outwards():
    density = density_grid(of([0.1, 0.2, 0, 0.5, 100]))
    assert density.shape == (33, 33, 33)
    vertices, faces, removed = isosurface.isosurface(density, 50.0)
    away = np.linalg.norm(vertices - [0.1, 0.2, 0], axis=1)
    np.testing.assert_allclose(away, 0.5, atol=0.015)
    assert removed == 0
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.06)
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()

    few, fewer = isosurface.simplify(vertices, faces, 300)
    assert isosurface.is_closed(vertices, faces) and isosurface.is_closed(few, fewer)
    assert not isosurface.is_closed(few, fewer[1:])
    assert 250 < len(fewer) <= 300
    normals = isosurface.vertex_normals(few, fewer)
    radial = few - [0.1, 0.2, 0]
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    assert ((normals * radial).sum(1) > 0.97).all()


def test_small_pieces_float_and_large_ones_stay():
    large, small, tiny = [-0.3, 0, 0, 0.4, 100], [0.5, 0, 0, 0.25, 100], [0, 0.8, 0, 0.08, 100]
    vertices, _, removed = isosurface.isosurface(density_grid(of(large, small, tiny)), 50.0)
    assert removed == 1
    assert vertices[:, 0].max() == pytest.approx(0.75, abs=0.02)
    assert vertices[:, 1].max() == pytest.approx(0.4, abs=0.02)


def test_cavities_are_filled():
    shell = density_grid(of([0, 0, 0, 0.7, 100], [0, 0, 0, 0.4, -100]))
    assert shell[16, 16, 16] < 1
    vertices, faces, _ = isosurface.isosurface(shell, 50.0)
    assert np.linalg.norm(vertices, axis=1).min() > 0.6
    assert volume(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.06)


def test_closing_fills_pores_and_keeps_what_is_convex():
    whole = density_grid(of([0, 0, 0, 0.6, 100]))
    np.testing.assert_array_equal(isosurface.closed(whole, 0), whole)
    np.testing.assert_allclose(isosurface.closed(whole, 2), whole, atol=25)
    porous = whole.copy()
    porous[16, 16, 16:] = 0
    closed = isosurface.closed(porous, 2)
    assert (closed >= porous).all()
    np.testing.assert_allclose(closed[16, 16, 16:22], whole[16, 16, 16:22], rtol=0.05)


def test_the_threshold_is_found_from_silhouettes_alone():
    """Matter of density 100 in thin haze: any threshold in between shows the same ball."""
    field = of([0, 0, 0, 0.5, 100], [0, 0, 0, 0.9, 0.2])
    density = density_grid(field)
    _, opacity = field_views(field, occupancy_of(density), CAMERAS, 48, 32)
    mask = opacity > 0.5
    peak = isosurface.peaks([density], CAMERAS, 48)[0]
    threshold = isosurface.best_threshold(peak, mask)
    assert 1 < threshold < 90
    assert isosurface.iou(peak >= threshold, mask).min() > 0.95
    assert isosurface.iou(peak >= 0.1, mask).max() < 0.5
    with pytest.raises(ValueError, match="the field is empty: nothing in it hides half"):
        isosurface.best_threshold(peak, mask & False)


def test_best_threshold_by_hand():
    """A view of four pixels, and one in which nothing should be seen."""
    peaks = np.array([[[1.0, 2, 3, 4]], [[3.5, 0, 0, 0]]])
    masks = np.array([[[1, 0, 1, 1]], [[0, 0, 0, 0]]], bool)
    assert isosurface.best_threshold(peaks[:1], np.array([[[False, False, True, True]]])) == 3
    assert isosurface.best_threshold(peaks[:1], masks[:1]) == pytest.approx(1)  # 3/4; 2/4, 2/3, 1/3
    assert 3.5 < isosurface.best_threshold(peaks, masks) <= 4  # (1/3 + 1) / 2; (3/4 + 0) / 2 at 1


def test_peaks_are_of_all_rays_that_meet_something():
    """Against brute force, and against the same with nothing left out."""
    grids = [density_grid(of([0.4, 0.2, 0, 0.15, 100], [-0.5, 0, 0, 0.1, d])) for d in (3, 40)]
    grids = [np.where(grid < 1e-3, 0, grid) for grid in grids]
    every = isosurface.peaks(grids, CAMERAS, 32, least=0.0)
    found = isosurface.peaks(grids, CAMERAS, 32, least=0.1)
    seen = (every >= 0.1).any(0)
    np.testing.assert_array_equal(found[:, seen], every[:, seen])
    assert 0.02 < seen.mean() < 0.2 and (found[:, ~seen] <= 0.1).all()
    assert (found == 0).mean() > 0.5
    axis = np.linspace(-1, 1, len(grids[0]))
    origins, directions = (np.asarray(x) for x in rays(camera_at(CAMERAS, 1), 32, 32))
    pixels = [np.unravel_index(peak[1].argmax(), (32, 32)) for peak in every]
    for row, column in [*pixels, (3, 3)]:
        t = np.linspace(1.7, 3.7, 4000)[:, None]
        points = origins[row, column] + t * directions[row, column]
        points = points[np.linalg.norm(points, axis=1) < 1]
        for grid, peak in zip(grids, every, strict=True):
            log = interpn((axis,) * 3, np.log1p(grid), points).max(initial=0)
            assert np.log1p(peak[1, row, column]) == pytest.approx(log, abs=0.05)


def test_gaps_that_views_show_stay_open():
    """Two plates with a slit between them, wide enough to be seen through from the side."""
    density = np.zeros((33, 33, 33), np.float32)
    density[8:25, 8:14, 8:25] = density[8:25, 17:23, 8:25] = 100
    cameras = ring([0, 90, 180, 270], 0, 2.7, 40)
    mask = isosurface.peaks([density], cameras, 48)[0] > 50
    assert isosurface.best_surface(density, mask, cameras)[1] < 2
    shut = isosurface.peaks([isosurface.closed(density, 3)], cameras, 48)[0] > 50
    assert isosurface.best_surface(density, shut, cameras)[1] == 3


def test_iou_by_hand():
    a = np.zeros((3, 2, 2), bool)
    b = a.copy()
    a[0], b[0, 0] = True, True
    b[1, 1, 1] = True
    np.testing.assert_allclose(isosurface.iou(a, b), [0.5, 0, 1])


def sponge():
    """A gyroid's sheet in a ball: many holes, and curved everywhere."""
    x, y, z = 8 * np.stack(np.meshgrid(*[np.linspace(-1, 1, 33)] * 3, indexing="ij"))
    sheet = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    away = np.maximum(np.abs(sheet) / 8 - 0.05, np.sqrt(x**2 + y**2 + z**2) / 8 - 0.8)
    return np.expm1(np.clip(5 - 16 * away, 0, 10))


def test_what_is_hard_to_simplify_stays_closed_and_never_cuts_itself():
    vertices, faces, _ = isosurface.isosurface(sponge(), np.expm1(5))
    torn = isosurface._reduced(vertices, faces, 3000)
    assert not isosurface.is_sound(*torn)
    few, fewer = isosurface.simplify(vertices, faces, 3000)
    assert 2900 < len(fewer) <= 3000 and isosurface.is_sound(few, fewer)
    assert volume(few, fewer) == pytest.approx(volume(vertices, faces), rel=0.1)
    cut = few.copy()
    cut[0] = cut[np.linalg.norm(cut - cut[0], axis=1).argmax()]  # a spike right through it
    assert not isosurface.is_sound(cut, fewer)
    with pytest.raises(ValueError, match="could not be reduced to 10; allow more of them"):
        isosurface.simplify(vertices, faces, 10)


@pytest.mark.parametrize("step", [(1, 1, 0), (1, 1, 1), (-1, 1, 1)])
def test_what_touches_at_an_edge_or_a_corner_is_one_part(step):
    """A leg of single grid points, slantwise under a box; far from it another piece."""
    density = np.zeros((33, 33, 33), np.float32)
    density[10:20, 20:28, 10:20] = density[26:31, 2:8, 2:8] = 100
    for i in range(12):
        density[tuple(np.array([15, 20, 15]) - i * np.array(step))] = 100
    vertices, faces, removed = isosurface.isosurface(density, 50.0)
    assert removed == 0 and isosurface.is_closed(vertices, faces)
    assert len(trimesh.Trimesh(vertices, faces).split()) == 2
    assert vertices[:, 1].min() < 2 * 9 / 32 - 1


def test_what_is_not_there_is_said():
    density = density_grid(of([0, 0, 0, 0.5, 100]))
    with pytest.raises(ValueError, match="nowhere as dense as the threshold"):
        isosurface.isosurface(density, 200.0)
    with pytest.raises(ValueError, match="not finite: its optimisation diverged"):
        density_grid(of([0, 0, 0, 0.5, np.nan]))


def test_meshes_made_at_the_same_time_are_each_their_own():
    spheres = [trimesh.creation.icosphere(5, radius=1 + i) for i in range(6)] * 3
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda m: isosurface.simplify(m.vertices, m.faces, 4000), spheres)
    radii = [np.linalg.norm(vertices, axis=1).mean() for vertices, _ in made]
    np.testing.assert_allclose(radii, [1.0 + i for i in range(6)] * 3, rtol=0.01)
