"""A run: compiled, on disk, and told to whoever trains it."""
