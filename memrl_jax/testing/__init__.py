"""Checks that users run on their own parts; each fails in one line that says what to mend."""

from memrl_jax.testing.agent import check_agent
from memrl_jax.testing.environment import check_environment
from memrl_jax.testing.memory import check_memory
from memrl_jax.testing.replay import check_replay

__all__ = ["check_agent", "check_environment", "check_memory", "check_replay"]
