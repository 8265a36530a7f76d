"""The quarantine ladder: one file for each level, each with `apply`, `probe` and `release`."""
