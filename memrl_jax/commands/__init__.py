"""The commands of `memrl`, one group of them a module."""
