"""Training runs: compiled, saved to disk, resumed and reported on."""
