"""A finished run with little in it, for the tests of its page."""

import shutil
from pathlib import Path

import numpy as np

from dsd_jax.export.model_files import Model, save_model
from dsd_jax.export.pictures import save_png
from dsd_jax.export.video import save_video
from dsd_jax.files import write_json

PROMPT = "a </script><script>alert(1)</script> \"red\" & 'big' house, 家 /*SCRIPT*/"

GEOMETRY = {"bump_deg": 12.3, "bump": 1.24, "creased_share": 0.5, "creased": 2.0, "parts": 2,
            "watertight": False, "self_intersecting": 1234, "clay": True}  # fmt: skip


def red_tetrahedron() -> Model:
    corners = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0, 0, 0.5], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    normals = corners - [0, 0.3, 0]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Model(corners, faces, normals, np.tile(np.uint8([220, 10, 10]), (4, 1)))


def make_run(folder: Path, seeds=range(16), prompt: str = PROMPT, bare: bool = True) -> Path:
    """A finished run: every third seed was refused; diversity falls.

    Args:
        bare: the last seed has no mesh.
    """
    meshes = seeds[:-1] if bare else seeds
    turn = np.stack([np.full((32, 32, 3), 0.3 + 0.2 * i) for i in range(3)])
    save_video(folder / "turntable.mp4", turn, fps=3)
    save_model(folder, red_tetrahedron())
    write_json(folder / "config.json", {
        "prompt": prompt, "seeds": list(seeds), "method": "dsd", "prior": "toybox",
        "preset": "quick", "precision": "float32", "version": "0.2.0",
        "recipe": {"steps": 7, "method": {"eta_at": None}, "condition": {"negative_prompt": "<b>"}},
    })  # fmt: skip
    scores = {
        str(seed): {"steps": 7, "diversity": 0.5 - 0.01 * seed, "accepted": seed % 3 > 0,
                    "neighbours": ["house", "rock", "house"],
                    "geometry": GEOMETRY if seed in meshes else None}
        for seed in seeds
    }  # fmt: skip
    write_json(folder / "metrics.json", {
        "diversity": 0.425, "fidelity": {"accepted": 0.625, "category": "house", "reason": None},
        "seeds": scores, "seconds": {"total": 125.3}, "device": "cpu", "devices": 2,
        "interrupted": False,
    })  # fmt: skip
    for seed in seeds:
        own = folder / f"seed_{seed:04d}"
        for azimuth in range(0, 360, 45):
            save_png(own / "views" / f"az{azimuth:03d}.png", np.full((8, 8, 3), 0.8))
            if seed in meshes:
                save_png(own / "clay" / f"az{azimuth:03d}.png", np.full((8, 8, 3), 0.5))
        shutil.copy(folder / "turntable.mp4", own)
        (own / "field.safetensors").write_bytes(b"field")
        if seed in meshes:
            shutil.copy(folder / "mesh.glb", own)
            write_json(own / "mesh.json", {"faces": 4, "silhouette_iou": [0.9, 1.0],
                                           "psnr_db": [30.0, 31.0]})  # fmt: skip
    return folder
