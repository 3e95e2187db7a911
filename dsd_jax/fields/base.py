"""What a field is: anything that says how dense and of which colour the points of a ball are.

Letters: n points of the box [-1, 1]^3, f features.

    @dataclass(frozen=True)
    class Voxels(Field):
        cells: int = 32

        @property
        def resolution(self):
            return self.cells

        def init(self, key):
            return jnp.zeros((self.cells,) * 3 + (4,))

        def apply(self, params, points, stage=None):
            raw = params[tuple(jnp.int32((points.T + 1) * 0.5 * (self.cells - 1) + 0.5))]
            inside = jnp.sum(points * points, -1) <= 1
            return jnp.where(inside, jax.nn.softplus(raw[:, 0]), 0), jax.nn.sigmoid(raw[:, 1:])
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float

# (points [n, 3]) -> (density [n], features [n, f]): a field with its parameters
FieldFn = Callable[[Array], tuple[Array, Array]]


class Field(Protocol):
    """A field; hashable (a frozen dataclass), so that it may be a static argument.

    `init` and `apply` are what it must have. The rest is inherited by those who subclass this, and
    given by `completed` to those who do not.

    Attributes:
        resolution: cells along an axis of [-1, 1]^3 at which the field's detail ends: what a mesh
            is cut at. An attribute or a property.
    """

    resolution: int = 32

    @abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Fresh parameters, any pytree of float32 arrays; traceable, and a function of `key`."""
        ...

    @abstractmethod
    def apply(
        self, params: Any, points: Float[Array, "n 3"], stage: Any = None
    ) -> tuple[Float[Array, "n"], Float[Array, "n f"]]:
        """Density and features of points, which must not influence one another.

        Args:
            stage: what `stage` gave; None is all of the field.

        Returns:
            density: optical thickness per unit length, not negative, and 0 outside the unit ball.
            features: at least 3, of which the first three are albedo in [0, 1].
        """
        ...

    def parameter_groups(self, params: Any) -> Any:
        """Which learning rate each leaf has, "grid", "mlp" or, for none, "fixed": like params."""
        return jax.tree.map(lambda _: "grid", params)

    def stage(self, progress: Any, final: bool = False) -> Any:
        """What of the field is in use then, a pytree of numbers [] that `apply` is given.

        Args:
            progress: part of a run's steps that are done, from 0 to 1, perhaps traced. The numbers
                depend on it, the structure of the pytree does not. Above 1, up to 2, it is 1 and
                the part of the refinement's steps.
            final: as results show it.
        """
        return None

    def resolution_at(self, stage: Any) -> int:
        """`resolution` at a stage, whose numbers are not traced."""
        return self.resolution

    def settled(self, key: jax.Array, params: Any, stage: Any) -> Any:
        """The parameters that the refinement starts from.

        Args:
            stage: that at which distillation ended.
        """
        return params

    def proposal(self, params: Any, stage: Any = None) -> Callable[[Array], Array] | None:
        """What tells density alone, [n] of points [n, 3], for far less than `apply`, or None.

        Nearly is enough: it decides where along a ray `apply` is asked.
        """
        return None

    def penalty(self, params: Any, points: Float[Array, "n 3"]) -> Any:
        """What the refinement is to keep small beside the distance to its targets, []."""
        return 0.0


_OPTIONAL = (
    "resolution", "parameter_groups", "stage", "resolution_at", "settled", "proposal", "penalty"
)  # fmt: skip


def completed(field: Any) -> Field:
    """`field` itself or, where it lacks members that it may lack, wrapped with `Field`'s own.

    A field without `stage` need not have this argument of `apply`.

    Raises:
        TypeError: it has no `init` or `apply`, or is not hashable.
    """
    name = type(field).__name__
    for member in ("init", "apply"):
        if not callable(getattr(field, member, None)):
            raise TypeError(f"a field needs {member}, which {name} does not have")
    try:
        hash(field)
    except TypeError:
        message = f"a field must be hashable: make {name} a frozen dataclass of numbers"
        raise TypeError(message) from None
    return field if all(hasattr(field, member) for member in _OPTIONAL) else _Completed(field)


def uncompleted(field: Field) -> Any:
    """What `completed` was given."""
    return field.own if isinstance(field, _Completed) else field


@dataclass(frozen=True)
class _Completed(Field):
    """A field of the user's own, with `Field`'s members in place of those that it lacks."""

    own: Any

    def init(self, key: jax.Array) -> Any:
        return self.own.init(key)

    def apply(self, params: Any, points: Array, stage: Any = None) -> tuple[Array, Array]:
        given = () if stage is None else (stage,)
        return self.own.apply(params, points, *given)

    @property
    def resolution(self) -> int:
        return getattr(self.own, "resolution", Field.resolution)

    def parameter_groups(self, params: Any) -> Any:
        return getattr(self.own, "parameter_groups", super().parameter_groups)(params)

    def stage(self, progress: Any, final: bool = False) -> Any:
        return getattr(self.own, "stage", super().stage)(progress, final)

    def resolution_at(self, stage: Any) -> int:
        return getattr(self.own, "resolution_at", super().resolution_at)(stage)

    def settled(self, key: jax.Array, params: Any, stage: Any) -> Any:
        return getattr(self.own, "settled", super().settled)(key, params, stage)

    def proposal(self, params: Any, stage: Any = None) -> Callable[[Array], Array] | None:
        return getattr(self.own, "proposal", super().proposal)(params, stage)

    def penalty(self, params: Any, points: Array) -> Any:
        return getattr(self.own, "penalty", super().penalty)(params, points)
