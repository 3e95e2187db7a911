"""Turntables as H.264 in MP4, in the form that browsers and phones play.

Letters: n frames, h and w pixels.
"""

import subprocess
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from jaxtyping import Float, Num

from dsd_jax.export.pictures import to_uint8
from dsd_jax.files import atomic_path


def turntable_azimuths_deg(frames: int) -> Float[np.ndarray, "n"]:
    """Evenly spaced azimuths from 0, without 360: the last frame leads back into the first."""
    return np.arange(frames) * (360.0 / frames)


def save_video(path: str | Path, frames: Num[np.ndarray, "n h w 3"], fps: int = 30) -> None:
    """Write frames (floats in [0, 1] or uint8) as an .mp4, atomically.

    yuv420p wants even sizes: an odd last row or column is repeated. Raises ValueError for a path
    that does not end in .mp4 or for no frames at all, OSError if ffmpeg fails.
    """
    import imageio_ffmpeg

    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"a video's name must end in .mp4: {path}")
    pictures = to_uint8(frames)
    if not len(pictures):
        raise ValueError(f"no frames for {path}")
    odd = [(0, size % 2) for size in pictures.shape[1:3]]
    pictures = np.pad(pictures, ((0, 0), *odd, (0, 0)), mode="edge")
    height, width = pictures.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-i", "-", *target]
    # Not as `input`: that goes through a pipe in pieces of 512 bytes, each a turn of Python.
    with atomic_path(path) as temporary, TemporaryFile() as given:
        given.write(pictures.tobytes())
        given.seek(0)
        done = subprocess.run(
            [*command, str(temporary)], stdin=given, capture_output=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise OSError(f"ffmpeg could not write {path}: {said}")
