"""A masked task that cannot be solved where illegal actions are allowed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import trapdoors
from benchmarks.trapdoors import DOORS, FLOORS, best_return, bound_without_masks
from memrl_jax.environments import batch, check
from memrl_jax.environments.check import draw
from memrl_jax.rollout import evaluate


def played(choose: Any, masked: bool = True, episodes: int = 2000) -> Any:
    """Return returns and lengths of a policy: key, timestep -> doors."""
    env = batch(trapdoors.trapdoors(masked))

    @jax.jit
    def run(key: Any) -> Any:
        policy = lambda key, memory, t: (memory, choose(key, t), ())  # noqa: E731
        return evaluate(env, policy, (), key, episodes)

    return jax.device_get(run(jax.random.key(0)))


def highest(key: Any, t: Any) -> Any:
    """Choose the legal door that pays most; any door where nothing is said of legality."""
    rising = (t.observation == 1)[:, None]
    rank = jnp.where(rising, jnp.arange(DOORS), DOORS - 1 - jnp.arange(DOORS))
    masks = t.legal or (jnp.ones_like(rank, bool),) * 2
    return tuple(jnp.argmax(jnp.where(mask, rank, -1), axis=1) for mask in masks)


def test_trapdoors_do_as_they_say_and_legal_ones_are_safe() -> None:
    for masked in (True, False):
        check(trapdoors.trapdoors(masked), jax.random.key(0), steps=60)
    spaces = trapdoors.BOTH

    def random(key: Any, t: Any) -> Any:
        keys = jax.random.split(key, len(t.start))
        return jax.vmap(lambda key, legal: draw(spaces, key, legal))(keys, t.legal)

    outcome = played(random)
    np.testing.assert_array_equal(outcome.length, FLOORS)
    assert outcome.total.mean() == pytest.approx(FLOORS / 2, abs=0.1)


def test_the_best_return_and_the_bound_are_those_of_the_best_doors() -> None:
    with_masks, without = (played(highest, masked) for masked in (True, False))
    assert with_masks.total.mean() == pytest.approx(best_return(), abs=0.05)
    assert without.total.mean() == pytest.approx(bound_without_masks(), abs=0.05)
    assert bound_without_masks() < 0.1 * best_return()


def test_an_agent_solves_it_with_masks_and_cannot_without() -> None:
    """The short form of `python -m benchmarks.trapdoors`."""
    with_masks, without = (trapdoors.score("ppo", masked, 20_000, 2) for masked in (True, False))
    assert with_masks.min() > 0.9 * best_return(), with_masks
    assert without.max() < bound_without_masks() + 0.15, without
