"""A fresh network takes over once, and the old one goes on acting for a while."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import tree
from memrl_jax.build import make_agent, make_environment
from tests.small import SMALL, random_segment

RESTARTING = SMALL.replace(restart=3, restart_hold=2, replay="prioritized")


@pytest.fixture(scope="module")
def learned() -> tuple[Any, Any, list[Any]]:
    """An agent that restarts, a segment, and its states before and after each of six updates."""
    made = make_agent(RESTARTING, make_environment(RESTARTING))
    segment = random_segment(RESTARTING, made.initial_memory(RESTARTING.environments))
    state = made.init(jax.random.key(0), tree.at(segment.timestep, 0))
    observe, learn = jax.jit(made.observe), jax.jit(made.learn)
    for _ in range(made.warmup):
        state = observe(state, segment)
    states = [state]
    for key in jax.random.split(jax.random.key(1), 6):
        states.append(learn(key, states[-1], segment)[0])
    return made, segment, states


def same(x: Any, y: Any) -> bool:
    """Tell whether all leaves are equal."""
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_restart_begins_anew_with_what_was_experienced(learned: Any) -> None:
    _, _, states = learned
    assert [int(x.updates) for x in states] == [0, 1, 2, 3, 4, 5, 6]
    spare, fresh = states[0].spare, states[3].agent.learner
    assert not same(spare, states[0].agent.learner.params)
    assert same(states[2].spare, spare)
    assert same(fresh.params, spare) and same(fresh.target_params, spare)
    assert same(fresh.optimizer, states[0].agent.learner.optimizer)
    assert not same(fresh.optimizer, states[4].agent.learner.optimizer)
    rings = [x.agent.replay.ring for x in states]
    assert all(same(ring, rings[0]) for ring in rings)


def test_the_old_network_acts_until_it_is_released(learned: Any) -> None:
    made, segment, states = learned
    timestep, memory = tree.at(segment.timestep, 0), made.initial_memory(RESTARTING.environments)
    for state in states:
        held = int(state.updates) in (3, 4)
        own = state.agent.learner.params
        assert same(made.params(state), state.spare if held else own)
        # What acts, what is told and what `params` gives are one network.
        plain = make_agent(SMALL.replace(replay="prioritized"), make_environment(SMALL))
        alone = plain.with_params(state.agent, made.params(state))
        ours, theirs = (
            a.act(jax.random.key(2), s, memory, timestep)
            for a, s in ((made, state), (plain, alone))
        )
        assert same(ours, theirs)
        q = made.inspect(state, memory, timestep)["q"]
        np.testing.assert_array_equal(q, plain.inspect(alone, memory, timestep)["q"])


def test_no_restart_leaves_no_trace() -> None:
    """Without it an agent is not wrapped at all; with it, an update that is not the one learns
    what it would have."""
    plain = make_agent(SMALL, make_environment(SMALL))
    made = make_agent(SMALL.replace(restart=100), make_environment(SMALL))
    segment = random_segment(SMALL, made.initial_memory(SMALL.environments))
    state = made.init(jax.random.key(0), tree.at(segment.timestep, 0))
    for _ in range(made.warmup):
        state = made.observe(state, segment)
    ours, metrics = jax.jit(made.learn)(jax.random.key(1), state, segment)
    theirs, plain_metrics = jax.jit(plain.learn)(jax.random.key(1), state.agent, segment)
    # Up to rounding: they are two programs.
    chex.assert_trees_all_close((ours.agent, metrics), (theirs, plain_metrics), atol=1e-6)


def test_updates_are_counted_to_the_end_and_nothing_restarts_twice(learned: Any) -> None:
    made, segment, states = learned
    late = states[-1]._replace(updates=jnp.int32(2**31 - 1))
    later, _ = jax.jit(made.learn)(jax.random.key(3), late, segment)
    assert later.updates == 2**31 - 1
    assert same(later.spare, late.spare) and not same(later.agent, states[0].agent)


def test_a_hold_without_a_restart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^restart_hold: 3 updates after restart = None$"):
        memrl_jax.make_train(SMALL.replace(restart_hold=3))
