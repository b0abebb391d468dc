"""What the benchmarks share: a fleet on loopback, what breaks it, and what judges it."""
