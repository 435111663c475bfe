"""Pictures: curves over seeds, episodes step by step, and what memories hold."""

from memrl_jax.plot.addresses import addresses, attention, hops
from memrl_jax.plot.base import COLORS, STYLES
from memrl_jax.plot.curves import curves, extrapolation
from memrl_jax.plot.effects import effect
from memrl_jax.plot.episode import episode
from memrl_jax.plot.film import film
from memrl_jax.plot.lags import erasure, sensitivity
from memrl_jax.plot.schedules import schedule
from memrl_jax.plot.state import state

__all__ = ["COLORS", "STYLES", "addresses", "attention", "curves", "effect", "episode", "erasure"]
__all__ += ["extrapolation", "film", "hops", "schedule", "sensitivity", "state"]
