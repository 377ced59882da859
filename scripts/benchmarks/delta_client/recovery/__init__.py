"""What the benchmark of deltas freezes in place of the device's own package: one installation, no journal."""
