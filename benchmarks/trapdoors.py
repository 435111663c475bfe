"""A task that can only be solved with action masks: `python -m benchmarks.trapdoors`.

Without masks, nothing that an agent sees tells illegal actions from others. The command prints the
returns of several agents with masks and without, beside the best there is.
"""

from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import memrl_jax
from memrl_jax import build
from memrl_jax.environments import ENVIRONMENTS, Arrival, episodic
from memrl_jax.spaces import Discrete
from memrl_jax.types import Array, Environment, Key

FLOORS, DOORS = 8, 4
BOTH = (Discrete(DOORS), Discrete(DOORS))


class Floor(NamedTuple):
    """The state of an episode."""

    number: Array  # [] int32
    rising: Array  # [] bool: whether higher doors pay more here, or lower ones
    safe: Array  # [2, DOORS] bool


def trapdoors(masked: bool = True) -> Environment:
    """Make an environment in which to choose one door on each of two sides, on FLOORS floors.

    A door pays from 0 to 1 / 2 by its number, rising or falling; the observation is which of the
    two holds on this floor. Every door has a trapdoor with probability 1 / 2, drawn anew on every
    floor, but one door on each side is always safe. A trapdoor pays nothing and ends the episode.
    `masked` makes trapdoors illegal; otherwise they can be chosen.
    """

    def arrive(key: Key, number: Array) -> tuple[Floor, Array]:
        rising_key, safe_key, kept_key = jax.random.split(key, 3)
        kept = jax.nn.one_hot(jax.random.randint(kept_key, (2,), 0, DOORS), DOORS, dtype=bool)
        safe = jax.random.bernoulli(safe_key, shape=(2, DOORS))
        safe = jnp.where(safe.any(axis=1, keepdims=True), safe, kept)
        rising = jax.random.bernoulli(rising_key)
        return Floor(number, rising, safe), rising.astype(jnp.int32)

    def first(key: Key) -> tuple[Floor, Array]:
        return arrive(key, jnp.int32(0))

    def step(key: Key, floor: Floor, doors: tuple[Array, Array]) -> Arrival:
        chosen = jnp.stack(doors)
        fell = ~jnp.all(floor.safe[jnp.arange(2), chosen])
        rank = jnp.where(floor.rising, chosen, DOORS - 1 - chosen)
        reward = jnp.where(fell, 0.0, jnp.sum(rank) / (2.0 * (DOORS - 1)))
        after, observation = arrive(key, floor.number + 1)
        return Arrival(after, observation, reward, fell | (after.number == FLOORS), False)

    def legal(floor: Floor) -> tuple[Array, Array]:
        return floor.safe[0], floor.safe[1]

    return episodic(first, step, Discrete(2), BOTH, FLOORS, legal if masked else None)


def best_return() -> float:
    """Return what the best legal policy earns in an episode, by enumeration of safe doors."""
    drawn = np.array([*product([0, 1], repeat=DOORS)], bool)[1:]
    top = [np.flatnonzero(safe).max() for safe in drawn]
    # The draw without any safe door, as likely as any other, leaves one at random.
    mean = (sum(top) + (DOORS - 1) / 2) / 2**DOORS
    return FLOORS * mean / (DOORS - 1)


def bound_without_masks() -> float:
    """Return an upper bound for policies without masks: always the best doors, at their risk."""
    safe = 0.5 + 0.5**DOORS / DOORS
    earned = 0.0
    for _ in range(FLOORS):
        earned = safe**2 * (1 + earned)
    return earned


_SMALL: dict[str, Any] = {"environments": 16, "rollout_length": 32, "encoder": (32,)}
PRESETS: dict[str, dict[str, Any]] = {
    "ppo": _SMALL | {"learning_rate": 3e-3},
    "recurrent-ppo": _SMALL
    | {"learning_rate": 3e-3, "memory_args": {"features": 32}, "normalize_observations": False},
    "pqn": _SMALL | {"number_actions": True, "minibatches": 4, "epsilon_steps": 20_000.0},
    "dqn": {"number_actions": True, "learning_starts": 1_000, "epsilon_steps": 20_000.0},
}


def score(preset: str, masked: bool, steps: int, seeds: int, first: int = 0) -> np.ndarray:
    """Train and evaluate on 200 episodes a seed: mean returns [seeds]."""
    ENVIRONMENTS["Trapdoors"] = trapdoors
    config = memrl_jax.presets[preset].replace(
        environment="Trapdoors", environment_args={"masked": masked}, **PRESETS[preset]
    )
    config = config.replace(
        total_steps=steps // build.per_rollout(config) * build.per_rollout(config)
    )
    trainer, _ = build.make(config)

    @jax.jit
    @jax.vmap
    def run(key: Key) -> Array:
        state, _ = memrl_jax.make_train(config)(key)
        return trainer.evaluate(jax.random.fold_in(key, 1), state.agent, 200).total.mean()

    return np.asarray(run(jax.vmap(jax.random.key)(jnp.arange(first, first + seeds))))


def main() -> None:
    """Print the figures."""
    print(f"best with masks {best_return():.2f}, bound without {bound_without_masks():.2f}")
    for preset in PRESETS:
        with_masks, without = (score(preset, masked, 50_000, 4) for masked in (True, False))
        told = "  ".join(
            f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})" for x in (with_masks, without)
        )
        print(f"{preset:16} with masks, without: {told}", flush=True)


if __name__ == "__main__":
    main()
