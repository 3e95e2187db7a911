"""What a user types: flags, checks, progress, logs."""
