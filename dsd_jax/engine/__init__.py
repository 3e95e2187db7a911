"""Many seeds: the loop, devices and hosts, the memory plan, checkpoints, results."""
