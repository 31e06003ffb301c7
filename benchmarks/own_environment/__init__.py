"""Libraries that cannot be installed together with persona-probe, timed and checked in separate environments."""
