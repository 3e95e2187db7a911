"""What the pictures of a run take, estimated before anything is compiled.

What steps take is counted in `memory`. Pictures are drawn one after another, so that they take
little beside that, unless they are very large or very many; those are refused here. Letters: n
seeds in all, c seeds a chunk.
"""

from dsd_jax.engine import host_memory, memory
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.rendering.cameras import AZIMUTHS_DEG
from dsd_jax.rendering.chunks import chunk_within

# Side of the run's views, pixels.
VIEW_SIZE = 256
# Bytes of a pixel that is drawn: its ray and colour, and of each sample its place.
_PIXEL, _PLACE = 64, 4
# Points that are drawn at a time.
_POINTS = 2**16


def refuse_too_large(recipe: Recipe, seed_bytes: int, n: int, c: int) -> None:
    """Refuse a recipe whose pictures memory cannot hold.

    `seed_bytes` is what the state of a seed takes.
    Raises ValueError with one line that says what to make smaller.
    """
    limit, numbers = memory.bytes_available(), recipe.results
    drawn, size, samples, flags = max((_drawn(recipe, *own[:2]), *own) for own in _sizes(recipe))
    if drawn > limit:
        raise ValueError(
            f"a picture of {size} pixels a side and {samples} samples a ray needs about "
            f"{memory.gb(drawn)} of memory, but the device has {memory.gb(limit)}; make {flags} "
            "smaller"
        )
    turns = c * 3 * numbers.turntable_frames * numbers.turntable_resolution**2
    kept = n * (seed_bytes + 3 * len(AZIMUTHS_DEG) * VIEW_SIZE**2)
    there = host_memory.free() + host_memory.resident()
    if turns + kept > there:
        raise ValueError(
            f"results of {n} seeds need about {memory.gb(turns + kept)} of memory (turntables "
            f"{memory.gb(turns)}), but the machine has {memory.gb(there)}; make "
            "--turntable-frames or --turntable-resolution smaller, or name fewer --seeds"
        )


def _sizes(recipe: Recipe) -> list[tuple[int, int, str]]:
    """Side, samples a ray, and the flags that say them, of all pictures that a run draws."""
    shown, refine = recipe.results, recipe.refine
    final = shown.final_samples, "--turntable-resolution or --final-samples"
    found = [
        (shown.turntable_resolution, *final),
        (VIEW_SIZE, *final),
        (shown.preview_resolution, recipe.render.samples, "--preview-resolution or --samples"),
    ]
    if refine.rounds:
        flags = "--target-resolution or --target-samples"
        found.append((refine.target_resolution or VIEW_SIZE, refine.target_samples, flags))
    return found


def _drawn(recipe: Recipe, size: int, samples: int) -> int:
    """Bytes that drawing a picture takes."""
    points = chunk_within(_POINTS, size, size * samples) * size * samples
    levels, _, width = memory.size_of_field(recipe)
    work = int(points * memory.costs().of_point(levels, width))
    return size**2 * (_PIXEL + _PLACE * samples) + work
