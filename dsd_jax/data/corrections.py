"""What looking at the Toybox file showed to be amiss in it, and the mend."""

from collections.abc import Sequence

import numpy as np

_TEXTURED = {"mech_pack", "spaceships_pack"}
_LINEAR_NAMES = {"bench", "low poly horse", "low poly tree"}
_SRGB_VEHICLES = ("boat", "ship", "citroen", "ice cream")


def stored_linear(source: Sequence, group: Sequence, file_name: Sequence) -> np.ndarray:
    """Which objects carry linear colours where sRGB is promised, [n] bool.

    Colours of untextured materials were copied from the authors' files, where they are linear:
    taken for sRGB, brown dinosaurs and green trees are nearly black.
    """
    return np.array(
        [
            (s == "quaternius" and g not in _TEXTURED)
            or (s == "kenney+quaternius2019" and g != "Models")
            or (s == "pmndrs" and g == "vehicles" and not name.startswith(_SRGB_VEHICLES))
            or (s == "pmndrs" and name in _LINEAR_NAMES)
            for s, g, name in zip(source, group, file_name, strict=True)
        ],
        bool,
    )


def linear_to_srgb(rgb: np.ndarray) -> np.ndarray:
    """The sRGB transfer curve (IEC 61966-2-1), uint8 to uint8."""
    linear = np.arange(256) / 255
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(np.uint8)[rgb]
