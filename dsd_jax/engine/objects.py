"""Finished objects: to be looked at, scored, turned into meshes and written.

Letters: n seeds, h w pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import jax
import numpy as np
from jax.sharding import Mesh as DeviceMesh
from jaxtyping import UInt8

from dsd_jax.engine import hosts, results, scoring
from dsd_jax.engine.lost import GONE, diverged, gone
from dsd_jax.engine.plan import Plan
from dsd_jax.export.field_grid import field_of
from dsd_jax.export.mesh import MeshResult, MeshSettings, make_mesh
from dsd_jax.export.scenes import SavedScene
from dsd_jax.export.splats import SplatResult, SplatSettings, make_splats
from dsd_jax.fields.given import GivenShape
from dsd_jax.metrics.scores import Scores
from dsd_jax.recipe.recipe import Recipe
from dsd_jax.recipe.state import State
from dsd_jax.recipe.viewpoints import Reference

if TYPE_CHECKING:
    from dsd_jax.engine.progress import Bar


class Object:
    """One seed's object.

    Attributes:
        seed: its seed.
        scene: its field and background, with their parameters.
    """

    def __init__(self, seed: int, scene: SavedScene, recipe: Recipe):
        self.seed, self.scene, self._recipe = seed, scene, recipe

    def __repr__(self) -> str:
        return f"Object(seed={self.seed})"

    def mesh(self, settings: MeshSettings = MeshSettings()) -> MeshResult:
        """Its textured mesh, which `.save("house.glb")` writes.

        Raises ValueError where the field is empty, or cannot be told in so few faces.
        """
        return make_mesh(field_of(self.scene), results.mesh_cameras(self._recipe), settings)

    def splats(self, settings: SplatSettings = SplatSettings()) -> SplatResult:
        """It as Gaussian splats, which `.save("house.ply")` writes.

        Raises ValueError where the field is empty.
        """
        return make_splats(field_of(self.scene), results.mesh_cameras(self._recipe), settings)


class About(NamedTuple):
    """What objects were made by.

    Attributes:
        prompt: of a picture's objects its name.
        reference: the picture, where they were made from one and it is at hand.
        prior, precision: their names.
        pictured: whether they were made from a picture.
        shape: that was given.
    """

    recipe: Recipe
    prompt: str
    reference: Reference | None
    prior: str
    precision: str
    pictured: bool = False
    shape: GivenShape | None = None


class Objects(Sequence[Object]):
    """The objects of n seeds, in the order of the seeds.

    Of several processes each has those of its own devices; what is returned below is of all.

    Attributes:
        about: what they were made by.
        seeds: those that were begun.
        steps: done, of each seed; of one that diverged, those after which it was found out.
        lost: why, of each seed that no score counts: it diverged, or nothing of it is left to be
            seen, which is known once `scores` or `save` have looked.
        diverged: those of them that diverged, which have no files, and after how many steps it was
            found out.
        latest: metrics of each seed's last steps.
        interrupted: 0, or the number of the signal that ended the run early.
        seconds: that the optimisation took, compiling included; None where that is not known.
    """

    def __init__(
        self,
        about: About,
        plan: Plan | DeviceMesh,
        chunks: list[tuple[list[int], State]],
        latest: dict[int, dict[str, float]],
        interrupted: int = 0,
        seconds: float | None = None,
        diverged_after: Mapping[int, int] = MappingProxyType({}),
    ):
        self.about, self.recipe, self.prompt = about, about.recipe, about.prompt
        self.plan = plan if isinstance(plan, Plan) else None
        self.device_mesh = plan.device_mesh if isinstance(plan, Plan) else plan
        self.chunks, self.latest = chunks, latest
        self.interrupted, self.seconds = interrupted, seconds
        begun = [seed for seeds, _ in chunks for seed in seeds]
        asked = plan.seeds if isinstance(plan, Plan) else begun
        self.seeds = [seed for seed in asked if seed in begun]
        self.steps = {seed: results.steps_done(rows) for seeds, rows in chunks for seed in seeds}
        self.steps |= diverged_after
        self.diverged = {**diverged_after}
        self.lost = {seed: diverged(step) for seed, step in diverged_after.items()}
        self._scores: Scores | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    @overload
    def __getitem__(self, index: int) -> Object: ...
    @overload
    def __getitem__(self, index: slice) -> list[Object]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        seed = self.seeds[index]
        return Object(seed, self.own_scenes[seed], self.recipe)

    def __repr__(self) -> str:
        return f"Objects({self.prompt!r}, seeds={self.seeds})"

    def views(self) -> UInt8[np.ndarray, "n 8 h w 3"]:
        """Pictures of every object from eight azimuths, 0 to 315 degrees, on grey."""
        return results.render(self, results.views_renderer)

    def turntable(self) -> UInt8[np.ndarray, "n frames h w 3"]:
        """Pictures of a whole turn of every object, on grey."""
        azimuths = results.turntable_azimuths(self.recipe)
        return results.render(self, results.turntable_renderer, azimuths)

    def scores(self, views: UInt8[np.ndarray, "n 8 h w 3"] | None = None) -> Scores:
        """How different the objects are, and how far a judge believes them.

        Args:
            views: of `views`, if they are at hand.

        Raises:
            ValueError: they were made from a picture that is not at hand.
        """
        if self._scores is None:
            self._scores = scoring.score(self, self.views() if views is None else views)
        return self._scores

    def look(self, views: UInt8[np.ndarray, "n 8 h w 3"]) -> None:
        """Note in `lost` of which objects these views show nothing."""
        for seed, empty in zip(self.seeds, gone(views).tolist(), strict=True):
            if empty:
                self.lost.setdefault(seed, GONE)

    def keep_scores(self, scores: Scores) -> None:
        """Have `scores` return these."""
        self._scores = scores

    def save(
        self, folder: str | Path, *, meshes: bool = True, config: dict[str, Any] | None = None,
        bar: "Bar | None" = None, times: Callable[[], dict[str, float]] | None = None,
    ) -> Path:  # fmt: skip
        """Write the folder that the command line writes, its gallery (index.html) included.

        Args:
            meshes: write each object's mesh.glb.
            config: what config.json says; left out, of these objects.
            bar: where the progress is shown.
            times: seconds that metrics.json is to name besides.
        """
        return results.save(self, Path(folder), meshes, config or self.config(), bar, times)

    def config(self) -> dict[str, Any]:
        """What config.json says: all that the objects depend on."""
        about = self.about
        told: dict[str, Any] = (
            {"image": about.prompt} if about.pictured else {"prompt": about.prompt}
        )
        if about.shape is not None:
            told |= {"mesh": about.shape.name, "shape": about.shape.fingerprint}
        known = results.config_of(about.recipe, self.seeds, about.prior, about.precision)
        if about.reference is not None:
            told["elevation_deg"] = about.reference.elevation_deg
        return told | known | results.given_of(about.prior)

    @cached_property
    def own_scenes(self) -> dict[int, SavedScene]:
        """Those of this process's own seeds."""
        found = {}
        for seeds, rows in self.chunks:
            stage = results.stage_of(rows, self.recipe)
            own = seeds[hosts.own_slice(rows.step.shape[0] * jax.process_count())]
            for i, seed in enumerate(own):
                parts = rows.params, rows.occupancy.occupied
                params, occupied = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), parts)
                found[seed] = SavedScene(
                    self.recipe.scene, params, stage, self.about.shape, occupied
                )
        return found
