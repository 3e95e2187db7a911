from flat_colours import compiled_quickly, prior, recipe, task  # noqa: F401
