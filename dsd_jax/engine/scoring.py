"""How good the objects of a run are: what metrics.json says.

Letters: n seeds, h w pixels.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import UInt8

from dsd_jax.engine import host_memory, picture_scores
from dsd_jax.engine.lost import scores_without
from dsd_jax.metrics.scores import Scores, of_prompt

if TYPE_CHECKING:
    from dsd_jax.engine.objects import Objects
    from dsd_jax.engine.plan import Plan


def score(objects: "Objects", views: UInt8[np.ndarray, "n 8 h w 3"]) -> Scores:
    """Diversity between seeds, and fidelity to the prompt or picture, of those not lost."""
    reference = objects.about.reference
    if objects.about.pictured and reference is None:
        raise ValueError("the picture that these objects were made from is not at hand")
    objects.look(views)

    def own(rows: list[int]) -> Scores:
        if reference is None:
            return of_prompt(objects.prompt, views[rows])
        fields = [objects[i].scene for i in rows]
        return picture_scores.of_fields(fields, reference, objects.recipe, views[rows])

    return scores_without(objects.seeds, objects.lost, own)


def summary(objects: "Objects", scores: Scores) -> dict[str, Any]:
    """What metrics.json says about the result, overall and per seed."""
    return {
        **scores.run,
        "seeds": {
            str(seed): {"steps": objects.steps[seed], **own, **objects.latest.get(seed, {})}
            | ({"lost": objects.lost[seed]} if seed in objects.lost else {})
            for seed, own in zip(objects.seeds, scores.seeds, strict=True)
        },
        "lost": [seed for seed in objects.seeds if seed in objects.lost],
        "interrupted": bool(objects.interrupted),
        **({"planned_memory_gb": planned_memory_gb(objects.plan)} if objects.plan else {}),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "peak_memory_gb": peak_memory_gb(),
    }


def planned_memory_gb(plan: "Plan") -> dict[str, float]:
    """What `plan` expects one memory to hold, in 1e9 bytes: the parts, and in all."""
    parts = {"program": plan.program, **plan.needs._asdict(), "in_all": plan.bytes_needed}
    return {name: round(size / 1e9, 6) for name, size in parts.items()}


def peak_memory_gb() -> dict[str, float]:
    """Most 1e9 bytes held so far, by the process and by the device that held most."""
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use", 0) for d in jax.local_devices()]
    return {"host": round(host_memory.peak() / 1e9, 2), "device": round(max(peaks) / 1e9, 2)}
