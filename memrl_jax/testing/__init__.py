"""Checks that users run on their own parts; each fails in one line that says what to mend."""

from memrl_jax.testing.environment import check_environment

__all__ = ["check_environment"]
