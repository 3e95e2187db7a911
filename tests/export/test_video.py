"""A turntable survives the way to disk and plays where it must."""

import imageio.v2 as imageio
import numpy as np
import pytest

from dsd_jax.export.video import save_video, turntable_azimuths_deg


def frames(n=8, height=33, width=48):
    """Grey frames with a bright bar that moves to the right."""
    pictures = np.full((n, height, width, 3), 0.2, np.float32)
    for i in range(n):
        pictures[i, :, 6 * i : 6 * i + 6] = [0.9, 0.6, 0.3]
    return pictures


@pytest.mark.filterwarnings("ignore:os.fork")  # imageio's reader; our writer does not fork
def test_round_trip(tmp_path):
    path = tmp_path / "seed_0000" / "turntable.mp4"
    save_video(path, frames(), fps=10)
    reader = imageio.get_reader(path, format="FFMPEG")
    meta = reader.get_meta_data()
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == 10 and meta["source_size"] == (48, 34)
    read = np.stack([frame for frame in reader]) / 255  # list() would ask for a length
    assert read.shape == (8, 34, 48, 3)
    assert np.abs(read[:, :33] - frames()).mean() < 0.03
    np.testing.assert_array_equal(read[..., 0].mean(1).argmax(1) // 6, np.arange(8))
    assert [p.name for p in path.parent.iterdir()] == ["turntable.mp4"]


def test_header_comes_first(tmp_path):
    """Browsers start to play a file whose index (moov) stands before its data (mdat)."""
    save_video(tmp_path / "a.mp4", frames(2))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_bad_input_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4"):
        save_video(tmp_path / "a.gif", frames(2))
    with pytest.raises(ValueError, match="no frames"):
        save_video(tmp_path / "a.mp4", frames(0))
    assert not list(tmp_path.iterdir())


def test_turntable_closes_without_a_double_frame():
    np.testing.assert_allclose(turntable_azimuths_deg(4), [0, 90, 180, 270])
    steps = np.diff(np.append(turntable_azimuths_deg(72), 360))
    np.testing.assert_allclose(steps, 5)
