"""Blind Cliffwalk: what prioritized replay gains grows with the length of the chain."""

import jax
import numpy as np

from benchmarks.cliffwalk import experience, filled, updates_needed


def test_the_replay_memory_holds_every_transition_once():
    timestep = experience(3)
    taken = ~np.asarray(timestep.start)
    assert taken.sum() == 2 ** (3 + 1) - 2
    assert np.asarray(timestep.reward).sum() == 1  # of 14 transitions one is rewarded
    replay, state = filled(3, "uniform")
    drawn = jax.vmap(replay.sample, (0, None))(jax.random.split(jax.random.key(0), 1000), state)
    assert len(np.unique(drawn.index)) == len(timestep.reward) - 1


def test_prioritized_replay_needs_ever_fewer_updates_than_uniform():
    """A short form of benchmarks/cliffwalk.py."""
    gain = [
        np.median(updates_needed(n, "uniform", 5)) / np.median(updates_needed(n, "prioritized", 5))
        for n in (3, 9)
    ]
    assert gain[1] > 2 * gain[0] and gain[1] > 1
