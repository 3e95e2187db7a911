"""One step of one seed, and every number of it."""
