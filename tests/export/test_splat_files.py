"""Splats as files: what other programs find in them."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from dsd_jax.export import splat_files
from dsd_jax.rendering.splats import Splats, covariances

SPLATS = Splats(
    np.array([[0.1, 0.9, -0.2], [0.3, 0.2, 0.4]], np.float32),
    np.log(np.array([[0.01, 0.02, 0.03], [0.1, 0.1, 0.02]], np.float32)),
    np.array([[1, 2, 3, 4], [-1, 0.5, 0, 0.2]], np.float32),
    np.array([2.0, -1.0], np.float32),
    np.array([[0.2, 0.5, 1.0], [0.0, 0.9, 0.3]], np.float32),
)


def test_what_was_written_is_read(tmp_path):
    splat_files.save(tmp_path / "splats.ply", SPLATS)
    assert (tmp_path / "splats.ply").stat().st_size < 1000
    found = splat_files.load(tmp_path / "splats.ply")
    for name in ("centres", "log_scales", "logits", "colours"):
        np.testing.assert_allclose(getattr(found, name), getattr(SPLATS, name), atol=1e-6)
    np.testing.assert_allclose(covariances(found), covariances(SPLATS), atol=1e-7)


def test_others_find_the_columns_of_3dgs(tmp_path):
    """Half a turn about z, by which programs show such files, brings back the mesh's place."""
    splat_files.save(tmp_path / "splats.ply", SPLATS)
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2"
    header, _, body = (tmp_path / "splats.ply").read_bytes().partition(b"end_header\n")
    assert header.decode().split("\n")[1:-1] == [
        "format binary_little_endian 1.0", "element vertex 2",
        *(f"property float {name}" for name in [*names.split(), "rot_3"]),
    ]  # fmt: skip
    rows = np.frombuffer(body, "<f4").reshape(2, 17)
    turn = np.diag([-1.0, -1, 1])
    np.testing.assert_allclose(rows[:, :3] @ turn, SPLATS.centres)
    np.testing.assert_allclose(0.5 + 0.28209479 * rows[:, 6:9], SPLATS.colours, atol=1e-6)
    np.testing.assert_allclose(rows[:, 9], SPLATS.logits)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 13:], axis=1), 1, rtol=1e-6)
    axes = Rotation.from_quat(np.roll(rows[:, 13:], -1, axis=1)).as_matrix()
    spread = np.einsum("nij,nj,nkj->nik", axes, np.exp(2 * rows[:, 10:13]), axes)
    np.testing.assert_allclose(turn @ spread @ turn, covariances(SPLATS), atol=1e-7)
    cloud = trimesh.load(tmp_path / "splats.ply")
    np.testing.assert_allclose(cloud.vertices, rows[:, :3])


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"splats\.glb must end in \.ply"):
        splat_files.save(tmp_path / "splats.glb", SPLATS)
    splat_files.save(tmp_path / "splats.ply", SPLATS)
    whole = (tmp_path / "splats.ply").read_bytes()
    for name, data in {"cut": whole[:-4], "points": whole.replace(b"rot_3", b"rot_4"),
                       "empty": b""}.items():  # fmt: skip
        (tmp_path / f"{name}.ply").write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}\.ply is damaged: it holds no splats "):
            splat_files.load(tmp_path / f"{name}.ply")
