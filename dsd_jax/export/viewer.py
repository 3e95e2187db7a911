"""A viewer in the browser: objects side by side as meshes, and one of them rendered live.

    with Viewer([Exhibit("seed 0", (0, 0, 0), lambda: live)], port=8080):
        ...

The page comes from this machine alone, over one port, which SSH can forward. What is rendered live
is sent to each browser as a picture of its own camera, with its depth: the other meshes stand
before and behind it. Needs viser (extra `viewer`).
"""

import contextlib
import getpass
import io
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from dsd_jax.export.live import FAR, Live, camera_from, picture
from dsd_jax.export.pictures import to_uint8
from dsd_jax.files import shortened
from dsd_jax.rendering.cameras import DISTANCE, FOV_DEG, Camera
from dsd_jax.rendering.splats import Splats, covariances

HOST, PORT = "127.0.0.1", 8080
MESHES = "none, meshes only"
# Between two objects.
STEP = 2.0
# What the panel offers: (least, most, step).
HEIGHTS, SAMPLES = (64, 512, 64), (16, 128, 16)
# Pages that may connect: this machine's own, at whatever port SSH forwards; None is no page.
_ORIGINS = (re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"), None)


class Exhibit(NamedTuple):
    """An object.

    Attributes:
        name: shown; each has its own.
        place: where the origin of its own coordinates is in the viewer's.
        live: what is to be rendered now, None where there is nothing yet.
        glb: its mesh, None without one.
        scale, origin: of the mesh, see `mesh.MeshResult`.
        splats: in world coordinates, None without any.
    """

    name: str
    place: Sequence[float]
    live: Callable[[], Live | None]
    glb: bytes | None = None
    scale: float = 1.0
    origin: Sequence[float] = (0.0, 0.0, 0.0)
    splats: Splats | None = None


def check_port(port: int, host: str = HOST) -> None:
    """Raise ValueError, with one line for the user, where no server can listen there."""
    if not 0 < port < 2**16:
        raise ValueError(f"--port must be from 1 to 65535, not {port}")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            flag = f"--port {port}" if host == HOST else f"--host {host} --port {port}"
            raise ValueError(f"{flag}: {error.strerror}; give another") from None


def how_to_reach(port: int, what: str = "viewer") -> str:
    """Lines that say where a server is, from this machine and from another."""
    forward = f"ssh -L {port}:localhost:{port} {getpass.getuser()}@{socket.gethostname()}"
    return f"{what}: http://localhost:{port}\nfrom another machine, first: {forward}"


class Viewer:
    """Use as a context manager; the server ends with it.

    Attributes:
        drawn: how many live pictures have been sent.
    """

    def __init__(self, exhibits: Sequence[Exhibit], port: int = PORT, chosen: str = MESHES):
        """
        Args:
            chosen: name of what is rendered live at first.
        """
        import viser

        self.drawn = 0
        self._exhibits = {exhibit.name: exhibit for exhibit in exhibits}
        silent = contextlib.redirect_stdout(io.StringIO())  # `how_to_reach` says it
        with silent, _for_own_pages():
            self._server = viser.ViserServer(HOST, port, label="dsd_jax", verbose=False)
        self._place_camera()
        gui = self._server.gui
        gui.configure_theme(show_share_button=False)  # it would need a server of others
        self._choice = gui.add_dropdown(
            "Render live", [MESHES, *self._exhibits], initial_value=chosen,
            hint="The field itself, from where you look; a click on a mesh chooses it, too.",
        )  # fmt: skip
        self._height = _slider(gui, "Resolution", HEIGHTS, 192)
        self._samples = _slider(gui, "Samples a ray", SAMPLES, 48)
        self._splatted = gui.add_checkbox(
            "Gaussian splats", False, visible=any(e.splats is not None for e in exhibits),
            hint="Instead of the meshes.",
        )  # fmt: skip
        self._note = gui.add_markdown("")
        for handle in (self._choice, self._height, self._samples, self._splatted):
            handle.on_update(self._adjusted)
        self._meshes = {e.name: self._add_mesh(e, e.glb) for e in exhibits if e.glb is not None}
        self._splats = {e.name: self._add_splats(e, e.splats) for e in exhibits if e.splats}
        self._server.on_client_connect(self._meet)
        self._news, self._closed = threading.Event(), False
        self._worker = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Viewer":
        self._worker.start()
        self.refresh()
        return self

    def __exit__(self, *_) -> None:
        self._closed = True
        self.refresh()
        self._worker.join()
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    @property
    def chosen(self) -> str:
        """Name of what is rendered live, or `MESHES`."""
        return self._choice.value

    def choose(self, name: str) -> None:
        """Render another object live, or none."""
        self._choice.value = name

    def refresh(self) -> None:
        """What is rendered live has changed, or how."""
        self._news.set()

    def _adjusted(self, _) -> None:
        """The panel was used: something may have to be loaded or compiled now."""
        self._note.content = "..."
        self.refresh()

    def _place_camera(self) -> None:
        """In front of all objects, at a run's distance from a single one."""
        places = np.array([exhibit.place for exhibit in self._exhibits.values()], float)
        low, high = places.min(0), places.max(0)
        middle, extent = (low + high) / 2, max(*(high - low)[:2] * [0.6, 1.0], 0.0)
        back = DISTANCE + extent / 2 / np.tan(np.deg2rad(FOV_DEG) / 2)
        camera = self._server.initial_camera
        self._server.scene.set_up_direction("+y")
        camera.position = tuple(middle + np.array([0.0, 0.3 * back, back]))
        camera.look_at, camera.up = tuple(middle), (0.0, 1.0, 0.0)
        camera.fov = float(np.deg2rad(FOV_DEG))

    def _add_mesh(self, exhibit: Exhibit, glb: bytes) -> Any:
        position = np.add(exhibit.place, exhibit.origin)
        name = f"/{exhibit.name}"
        handle = self._server.scene.add_glb(name, glb, scale=1 / exhibit.scale, position=position)
        handle.on_click(lambda _: self.choose(exhibit.name))
        below = np.add(exhibit.place, [0.0, -0.9, 0.0])
        self._server.scene.add_label(
            f"/label{name}", exhibit.name, position=below, anchor="top-center"
        )
        return handle

    def _add_splats(self, exhibit: Exhibit, splats: Splats) -> Any:
        return self._server.scene.add_gaussian_splats(
            f"/splats/{exhibit.name}", np.asarray(splats.centres), np.asarray(covariances(splats)),
            np.clip(splats.colours, 0, 1), 1 / (1 + np.exp(-np.asarray(splats.logits)[:, None])),
            position=np.asarray(exhibit.place), visible=False,
        )  # fmt: skip

    def _meet(self, client) -> None:
        client.camera.on_update(lambda _: self.refresh())
        self.refresh()

    def _work(self) -> None:
        """Draw whenever there is news: the newest alone, however much has come in between."""
        while not self._closed:
            self._news.wait()
            self._news.clear()
            try:
                self._draw()
            except (ValueError, OSError) as error:  # a field that cannot be read: the show goes on
                self._note.content = f"error: {shortened(error)}"
                print(self._note.content, file=sys.stderr)
            except Exception as error:
                self._note.content = f"error: {error}"
                traceback.print_exc()

    def _draw(self) -> None:
        chosen, clients = self.chosen, self._server.get_clients().values()
        chosen = chosen if chosen in self._exhibits else MESHES
        splatted = self._splats if self._splatted.value else {}
        for name, mesh in self._meshes.items():
            mesh.visible = name != chosen and name not in splatted
        for name, splats in self._splats.items():
            splats.visible = name != chosen and name in splatted
        live = None if chosen == MESHES or self._closed else self._exhibits[chosen].live()
        if live is None:
            self._note.content = "" if chosen == MESHES else "..."
            for client in clients:
                client.scene.set_background_image(None)
            return
        for client in clients:
            began, seen = time.perf_counter(), client.camera
            camera = _camera(seen, self._exhibits[chosen].place)
            height = _offered(self._height.value, HEIGHTS)
            drawn = picture(live, camera, height, _offered(self._samples.value, SAMPLES))
            rgb, depth = to_uint8(np.asarray(drawn.rgb)), np.asarray(drawn.depth)
            if client.client_id not in self._server.get_clients():
                continue  # it has left meanwhile
            client.scene.set_background_image(rgb, "jpeg", jpeg_quality=95, depth=depth)
            self.drawn += 1
            milliseconds = 1000 * (time.perf_counter() - began)
            self._note.content = f"{rgb.shape[1]} x {rgb.shape[0]} in {milliseconds:.0f} ms"


@contextlib.contextmanager
def _for_own_pages() -> Iterator[None]:
    """A viser server that starts meanwhile refuses pages of other sites, as its websockets can.

    Such a page could otherwise steer the viewer from the browser of whoever looks at it; viser
    itself has no setting for it.
    """
    from websockets.asyncio import server

    with mock.patch.object(server, "serve", partial(server.serve, origins=_ORIGINS)):
        yield


# ---- what a browser says, which may be anything ------------------------------------------------


def _slider(gui: Any, label: str, offered: tuple[int, int, int], value: int) -> Any:
    low, high, step = offered
    return gui.add_slider(label, min=low, max=high, step=step, initial_value=value)


def _offered(value: float, offered: tuple[int, int, int]) -> int:
    """The nearest of what a slider offers: each is compiled, and no more."""
    low, high, step = offered
    return low + step * round((_within(value, low, high) - low) / step)


def _camera(seen: Any, place: Sequence[float]) -> Camera:
    """The camera of a browser about an object, its numbers as a camera can have them."""
    from scipy.spatial.transform import Rotation

    wxyz = [_within(number, -1, 1) for number in seen.wxyz]
    wxyz = wxyz if np.linalg.norm(wxyz) > 1e-3 else [1, 0, 0, 0]
    position = [
        _within(x, -FAR, FAR) - origin for x, origin in zip(seen.position, place, strict=True)
    ]
    rotation = Rotation.from_quat(np.roll(wxyz, -1)).as_matrix()
    fov, aspect = _within(seen.fov, 0.01, 3.1), _within(seen.aspect, 0.1, 10)
    return camera_from(rotation, np.array(position), fov, aspect)


def _within(number: float, low: float, high: float) -> float:
    """A number between two others; `low` for what is none."""
    return float(np.clip(np.nan_to_num(float(number), nan=low), low, high))
