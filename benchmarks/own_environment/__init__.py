"""Libraries that cannot be installed beside persona-probe, timed and checked in environments of their own."""
