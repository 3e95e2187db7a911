"""What bench.py --torch times is the same work in PyTorch: it runs, and is named alike."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "camera_dim": 16,
}
VAE = {"block_out_channels": [32, 32], "sample_size": 16, "latent_channels": 4,
       "down_block_types": ["DownEncoderBlock2D"] * 2,
       "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip


def test_every_job_is_timed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments" / "tools")
    from benchmarks import menu, peer
    from benchmarks.clock import Care

    sizes = menu.MINIATURE
    jobs = peer.ceilings(sizes) + peer.jobs("toybox", (UNET, VAE, 5), sizes, {"unet", "vae"})
    found = peer.run(jobs, jobs, "float32", Care(0.0, 3))
    assert [(job.work, job.label, how) for job, how, _ in found if "pytorch eager" in how] == [
        ("matrix product", "", "pytorch eager"),
        ("copy", "", "pytorch eager"),
        ("unet forward", "batch 1", "pytorch eager"),
        ("unet forward", "batch 2", "pytorch eager"),
        ("vae encoder forward", "batch 1", "pytorch eager"),
        ("vae encoder forward + backward", "batch 1", "pytorch eager"),
    ]
    assert all(np.isfinite(time).all() and min(time) > 0 for _, _, time in found)
