"""A surface cut into flat charts that are packed into a texture, by xatlas.

Letters: n vertices, f faces.

xatlas takes most of a mesh's time, on one core, and lets no other thread of Python run meanwhile.
So it works in a process of its own, and several of them work at the same time if threads call
`unwrap`. That process runs this file, which is why nothing here imports JAX.
"""

import io
import signal
import subprocess
import sys
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Atlas(NamedTuple):
    """A surface cut into flat charts.

    Attributes:
        source: [n] the vertex of the uncut surface that each vertex is.
        faces: [f, 3] indices of the cut surface's vertices.
        uv: [n, 2] in [0, 1], (0, 0) being the upper left corner of the texture.
    """

    source: Int[np.ndarray, "n"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "n 2"]


def unwrap(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    normals: Float[np.ndarray, "n 3"],
    size: int,
) -> Atlas:
    """Charts of the surface packed into a square of `size` texels.

    Raises ValueError where xatlas fails.
    """
    with TemporaryFile() as file:  # not `input`, which goes in pieces of 512 bytes
        np.savez(file, vertices=vertices, faces=faces, normals=normals, size=np.array(size))
        file.seek(0)
        done = subprocess.run(
            [sys.executable, "-P", __file__], stdin=file, capture_output=True, check=False
        )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"its texture's charts failed with exit code {done.returncode}: {last}")
    return Atlas(**_arrays(done.stdout))


def _unwrap_here(vertices, faces, normals, size) -> Atlas:
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32), normals.astype(np.float32))
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = int(size), 2, True
    atlas.generate(charts, pack)
    source, cut, uv = atlas.get_mesh(0)
    return Atlas(source.astype(np.int64), cut.astype(np.int64), uv.astype(np.float64))


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as arrays:
        return dict(arrays)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it within xatlas too
    atlas = _unwrap_here(**_arrays(sys.stdin.buffer.read()))
    made = io.BytesIO()
    np.savez(made, **atlas._asdict())
    sys.stdout.buffer.write(made.getvalue())
