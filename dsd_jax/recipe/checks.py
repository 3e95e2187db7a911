"""Settings that cannot work are refused before anything is loaded or compiled."""

from dsd_jax.recipe.presets import Settings


def check(settings: Settings) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: one line that names the setting and what it must be.
    """
    s = settings
    if s.ode_points < 2:
        raise ValueError(f"--ode-points must be at least 2, not {s.ode_points}")
    if s.ode_table_points is not None and s.ode_table_points < 3:
        raise ValueError(f"--ode-table-points must be at least 3, not {s.ode_table_points}")
    at_least_one = ("steps", "views", "resolution", "late_resolution", "samples",
                    "late_samples", "levels", "features", "log2_entries", "base_resolution",
                    "width", "hidden_layers", "occupancy_every", "occupancy_resolution",
                    "final_samples", "turntable_frames", "turntable_resolution",
                    "preview_resolution", "ode_azimuth_bins", "ode_elevation_bins",
                    "lora_rank")  # fmt: skip
    for name in at_least_one:
        value = getattr(s, name)
        if value is not None and value < 1:
            raise ValueError(f"--{flag(name)} must be at least 1, not {value}")
    fractions = ("t_min", "t_max", "ode_guidance_below", "t_prime_offset", "eta", "eta_at",
                 "visible_eta", "image_space", "late_image_space", "late_from", "shading_from",
                 "shading_probability", "textureless_probability", "levels_until",
                 "early_until", "fresh_share")  # fmt: skip
    for name in fractions:
        if not 0 <= (getattr(s, name) or 0) <= 1:
            raise ValueError(f"--{flag(name)} must lie in 0..1, not {getattr(s, name)}")
    if not s.lora_rate > 0:
        raise ValueError(f"--lora-rate must be positive, not {s.lora_rate}")
    if not s.asd_gamma >= -1:
        raise ValueError(f"--asd-gamma must be at least -1, not {s.asd_gamma}")
    if s.t_min >= s.t_max:
        raise ValueError(f"--t-min must be below --t-max, not {s.t_min} and {s.t_max}")
    if s.eta_at is not None and s.eta_at >= s.t_max:
        raise ValueError(f"--eta-at must be below --t-max, not {s.eta_at} and {s.t_max}")
    if not -90 < s.elevation_min_deg <= s.elevation_max_deg < 90:
        raise ValueError("--elevation-min-deg and --elevation-max-deg must ascend inside -90..90")
    if s.distance <= 1.0:
        raise ValueError(f"--distance must exceed the object's radius 1, not {s.distance}")
    if s.density_floor < 0:
        raise ValueError(f"--density-floor must not be negative, not {s.density_floor}")
    if not 0 < s.fov_deg < 180:
        raise ValueError(f"--fov-deg must lie inside 0..180, not {s.fov_deg}")
    if s.growth < 1:
        raise ValueError(f"--growth must be at least 1, not {s.growth}")


def flag(name: str) -> str:
    """A setting's name as the command line spells it."""
    return name.replace("_", "-")
