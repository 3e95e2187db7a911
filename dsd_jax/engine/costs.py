"""What depends on the compiler in what a run holds in memory, see `memory`."""

from typing import NamedTuple

# Bytes that a sampled point at work takes by unit of the MLP.
_POINT_UNIT = 8


class Costs(NamedTuple):
    """What depends on the compiler.

    Attributes:
        point_level: bytes that a sampled point at work takes, by hash-grid level.
        backward: numbers kept for the encoder's backward pass, by input of its group norms.
        kernels: how much of the prior's weights is kept a second time, in the layout that a GPU's
            convolutions want.
        in_turn: whether rendering and networks work in the same memory, one after the other.
        together: whether all devices of a process share one memory.
        program: bytes of that memory that the process takes besides: Python, JAX, and what is
            compiled while seeds are optimised, where nothing is yet.
        refining: what compiling the refinement adds to it.
        compiling: what the process takes before the first step, however few the seeds.
    """

    point_level: float
    backward: float
    kernels: float
    in_turn: bool
    together: bool = False
    program: int = 0
    refining: int = 0
    compiling: int = 0

    def of_point(self, levels: int, width: int) -> float:
        """Bytes of a sampled point at work, of a grid of so many levels and an MLP so wide."""
        return levels * self.point_level + width * _POINT_UNIT


ON_CPU = Costs(
    point_level=60, backward=3, kernels=0, in_turn=False, together=True,
    program=1_300_000_000, refining=1_600_000_000, compiling=1_850_000_000,
)  # fmt: skip
ON_ACCELERATOR = Costs(point_level=22.5, backward=0.93, kernels=0.66, in_turn=True)
