"""The viewer: live pictures, what is refused, and the whole of it in a headless browser."""

import re
import socket
import time
from typing import Any

import jax
import numpy as np
import pytest
from programs import free_port

from dsd_jax.export import live as live_module
from dsd_jax.export import viewer as viewer_module
from dsd_jax.export.live import FAR, Live, Picture, camera_from, load_live, picture
from dsd_jax.export.scenes import SavedScene, save_scene
from dsd_jax.export.viewer import MESHES, Exhibit, check_port, how_to_reach
from dsd_jax.fields.radiance import HashGridField
from dsd_jax.rendering.cameras import orbit, rays
from dsd_jax.rendering.scene import Scene
from dsd_jax.rendering.splats import Splats

pytestmark = pytest.mark.usefixtures("quick_compilation")
FIELD = HashGridField(
    levels=2, log2_entries=8, base_resolution=16, growth=1.447, width=8, blob_scale=40.0,
    density="softplus", density_floor=0.0, colour_std=0.0,
)  # fmt: skip
SCENE = Scene(FIELD)
SEEN = Picture(np.zeros((4, 6, 3), np.float32), np.ones((4, 6), np.float32))
# Of a camera in OpenCV's convention that looks along -z: columns right, down, forward.
AHEAD = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def ball(quick_compilation, tmp_path_factory) -> Live:
    """A grey ball about the origin, of radius 0.5 or a little less."""
    params = SCENE.init(jax.random.key(0))
    folder = tmp_path_factory.mktemp("seed_0000")
    save_scene(folder, SavedScene(SCENE, params, None))
    return load_live(folder)


def test_a_square_window_shows_what_the_run_s_own_pictures_show(ball):
    """Narrower pixels, the same rays at the edges; depth is along the axis."""
    camera = camera_from(AHEAD, np.array([0, 0, 2.7]), np.deg2rad(40), 1.0)
    ours, theirs = rays(camera, 16, 24), rays(orbit(0, 0, 2.7, np.deg2rad(40)), 16, 24)
    tan = np.tan(np.deg2rad(20))
    x = ours[1][0, :, 0] / -ours[1][0, :, 2]
    np.testing.assert_allclose(x, tan * ((2 * np.arange(24) + 1) / 24 - 1), rtol=1e-5)
    np.testing.assert_allclose(ours[1][:, 11:13, 1:], theirs[1][:, 11:13, 1:], atol=2e-3)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)

    seen = picture(ball, camera, 16, 32)
    assert seen.rgb.shape == (16, 24, 3) and seen.depth.shape == (16, 24)
    depth = np.asarray(seen.depth)
    assert (depth[[0, -1]] == FAR).all() and (depth[:, [0, -1]] == FAR).all()
    np.testing.assert_allclose(seen.rgb[0], 0.8, atol=1e-5)
    assert 2.2 < depth[7:9, 11:13].min() < 2.7
    solid = np.argwhere(depth < FAR)
    rows, columns = np.ptp(solid, axis=0) + 1
    assert columns == pytest.approx(1.5 * rows, abs=1.5)


def test_a_wide_window_sees_more_to_the_sides_and_the_same_above(ball):
    """At aspect 1.5 pixels are square, so `orbit`'s camera is met to the last bit of rounding."""
    camera = camera_from(AHEAD, np.array([0, 0, 2.7]), np.deg2rad(40), 1.5)
    reference = orbit(0, 0, 2.7, np.deg2rad(40))
    for ours, theirs in zip(rays(camera, 8, 12), rays(reference, 8, 12), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_it_is_compiled_once_a_resolution_whatever_the_camera_and_the_object(ball):
    compiled = live_module._picture._cache_size()
    other = ball._replace(params=jax.tree.map(lambda leaf: leaf + 0.01, ball.params))
    for shown, aspect in ((ball, 0.5), (other, 1.0), (other, 2.0)):
        picture(shown, camera_from(AHEAD, np.array([0.1, 0, 3]), 0.7, aspect), 10, 8)
    assert live_module._picture._cache_size() == compiled + 1


def test_a_port_that_is_taken_or_is_none():
    with socket.socket() as taken:
        taken.bind((viewer_module.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"--port {port}: Address already in use; give ano"):
            check_port(port)
    check_port(port)
    with pytest.raises(ValueError, match="--port must be from 1 to 65535, not 65536"):
        check_port(65536)


def test_how_to_reach_it_from_elsewhere():
    here, there = how_to_reach(8123).splitlines()
    assert here.endswith("http://localhost:8123")
    assert re.search(r"ssh -L 8123:localhost:8123 \S+@\S+$", there)


# ---- over a raw WebSocket ----------------------------------------------------------------------


@pytest.fixture
def served(ball):
    """A viewer that shows the ball live."""
    pytest.importorskip("viser")
    port = free_port()
    exhibits = [Exhibit("ball", (0, 0, 0), lambda: ball)]
    with viewer_module.Viewer(exhibits, port, chosen="ball") as viewer:
        yield viewer, port


def connected(port: int, origin: Any):
    import viser
    from websockets.sync.client import connect

    protocol: Any = f"viser-v{viser.__version__}"
    return connect(f"ws://127.0.0.1:{port}", origin=origin, subprotocols=[protocol], max_size=None)


def test_a_field_that_cannot_be_read_is_one_line(capfd):
    """And the show goes on."""
    pytest.importorskip("viser")

    def live():
        raise ValueError("field.json is damaged")

    exhibits = [Exhibit("ball", (0, 0, 0), live)]
    with viewer_module.Viewer(exhibits, free_port(), chosen="ball") as viewer:
        end = time.monotonic() + 20
        while viewer._note.content == "" and time.monotonic() < end:
            time.sleep(0.01)
        viewer.choose(MESHES)
    assert capfd.readouterr().err == "error: field.json is damaged\n"


@pytest.mark.parametrize("origin", ["http://elsewhere.org", "http://localhost.elsewhere.org:80",
                                    "http://elsewhere.org:8080", "null", "file://"])  # fmt: skip
def test_pages_of_other_sites_are_refused(served, origin):
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as refused:
        connected(served[1], origin)
    assert refused.value.response.status_code == 403


def test_pages_of_this_machine_are_let_in(served):
    port = served[1]
    for origin in (f"http://localhost:{port}", "http://127.0.0.1:9000", "http://[::1]:9000", None):
        with connected(port, origin) as page:
            assert page.recv()


def test_numbers_of_a_browser_are_clamped(served, monkeypatch):
    """Whatever is said, what is rendered is what the panel offers."""
    import msgspec

    viewer, port = served
    asked = []
    monkeypatch.setattr(viewer_module, "picture", lambda *given: asked.append(given[1:]) or SEEN)

    def updates(slider, value):
        return {"type": "GuiUpdateMessage", "uuid": slider._impl.uuid, "updates": {"value": value}}

    def camera(**changes):
        usual = {
            "wxyz": [1.0, 0, 0, 0], "position": [0.0, 0, 3], "fov": 0.7, "near": 0.1, "far": 9.0,
            "image_height": 100, "image_width": 150, "look_at": [0.0, 0, 0],
            "up_direction": [0.0, 1, 0],
        }  # fmt: skip
        return {"type": "ViewerCameraMessage", **usual, **changes}

    nan, huge = float("nan"), 1e300
    hostile = [
        camera(), updates(viewer._height, 50_000), updates(viewer._samples, -7),
        updates(viewer._height, 100), camera(fov=nan), camera(fov=huge, position=[nan, huge, 0]),
        camera(wxyz=[0.0, 0, 0, 0]), camera(wxyz=[nan] * 4, image_width=10**12),
        updates(viewer._samples, 10**9), updates(viewer._choice, "nothing"),
        updates(viewer._choice, "ball"),
    ]  # fmt: skip
    with connected(port, f"http://localhost:{port}") as page:
        for message in hostile:
            before = len(asked)
            page.send(msgspec.msgpack.encode(message))
            end = time.monotonic() + 3
            while len(asked) == before and time.monotonic() < end and "nothing" not in str(message):
                time.sleep(0.01)
    sizes = {(height, samples) for _, height, samples in asked}
    assert {(512, 48), (512, 16), (128, 16), (128, 128)} <= sizes
    for camera_asked, height, samples in asked:
        assert np.isfinite(camera_asked.camera_to_world).all() and 0 < camera_asked.fov_y < np.pi
        assert height in range(64, 513, 64) and samples in range(16, 129, 16)


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def shown(ball, browser, monkeypatch):
    """A viewer of a red and a blue mesh, whose fields are the ball; its page; what was drawn."""
    pytest.importorskip("viser")
    import trimesh

    drawn, asked, draw = [], [], viewer_module.picture
    monkeypatch.setattr(
        viewer_module, "picture", lambda *given: (drawn.append(draw(*given)), drawn[-1])[1]
    )

    def mesh(colour):
        sphere = trimesh.creation.icosphere(2, 0.5)
        sphere.visual.vertex_colors = colour
        return sphere.export(file_type="glb")

    port = free_port()
    exhibits = [
        Exhibit("left", (-1, 0, 0), lambda: ball, mesh([255, 0, 0, 255]), 0.5, (0.0, 0.1, 0.0)),
        Exhibit("right", (1, 0, 0), lambda: ball, mesh([0, 0, 255, 255]), splats=green_splats()),
    ]
    with viewer_module.Viewer(exhibits, port) as viewer:
        page = browser.new_page(viewport={"width": 600, "height": 400})
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://localhost:{port}")
        yield viewer, page, drawn
        page.close()
    assert all(re.match(rf"(http://localhost:{port}/|data:|blob:)", url) for url in asked), asked


def green_splats() -> Splats:
    """A ball of a few hundred."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(400, 3))
    centres *= 0.4 / np.linalg.norm(centres, axis=1, keepdims=True)
    rotations = np.tile([1.0, 0, 0, 0], (400, 1))
    colours = np.tile([0.0, 0.8, 0.0], (400, 1))
    return Splats(centres, np.full((400, 3), np.log(0.04)), rotations, np.full(400, 5.0), colours)


def colours(page) -> dict[str, int]:
    """How many pixels of the window are red, green, blue, or the grey behind what is rendered."""
    import io

    from PIL import Image

    rgb = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return {
        "red": int(((r > 60) & (r > 3 * g) & (r > 3 * b)).sum()),
        "green": int(((g > 60) & (g > 3 * r) & (g > 3 * b)).sum()),
        "blue": int(((b > 60) & (b > 3 * g) & (b > 3 * r)).sum()),
        "grey": int((abs(rgb - 204).max(-1) < 4).sum()),
    }


def wait_until(page, true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        page.wait_for_timeout(100)


def test_meshes_are_shown_and_a_live_picture_follows_the_camera(shown):
    viewer, page, drawn = shown
    wait_until(page, lambda: min(colours(page)["red"], colours(page)["blue"]) > 1000)
    assert viewer.chosen == MESHES and not drawn and colours(page)["grey"] < 1000

    page.get_by_label("Render live").click()
    page.get_by_role("option", name="left").click()
    wait_until(page, lambda: drawn and colours(page)["grey"] > 50_000)
    assert viewer.chosen == "left"
    seen = colours(page)
    assert seen["red"] < 200 and seen["blue"] > 1000  # rendered instead of its mesh; still there

    before, count = drawn[-1], viewer.drawn
    page.mouse.move(150, 300)
    page.mouse.down()
    page.mouse.move(220, 320, steps=3)
    page.mouse.up()
    wait_until(page, lambda: viewer.drawn > count)
    wait_until(page, lambda: np.abs(drawn[-1].rgb - before.rgb).max() > 0.05)

    viewer.choose(MESHES)
    wait_until(page, lambda: colours(page)["red"] > 1000 and colours(page)["grey"] < 1000)


def test_splats_take_the_place_of_a_mesh(shown):
    """Of that object alone that has some."""
    _, page, _ = shown
    wait_until(page, lambda: min(colours(page)["red"], colours(page)["blue"]) > 1000)
    assert colours(page)["green"] < 500
    page.get_by_label("Gaussian splats").click(force=True)
    wait_until(page, lambda: colours(page)["green"] > 1000 and colours(page)["blue"] < 200)
    assert colours(page)["red"] > 1000
