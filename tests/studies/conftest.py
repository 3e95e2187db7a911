from flat_colours import compiled_quickly, settings, task  # noqa: F401
