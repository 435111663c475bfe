"""Views that make any environment partially observed, or less reliable; they compose.

Each takes an environment and numbers, and is named in VIEWS, so that a config can list them:
"flicker=0.5", "hide=2,3". All parts of an observation are affected alike.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import checks, draws, tree
from memrl_jax.environments.check import draw
from memrl_jax.environments.wrappers import view
from memrl_jax.kinds import FLOAT32
from memrl_jax.spaces import Continuous, Discrete, is_part, over, parts
from memrl_jax.types import Array, Environment, Key, TimeStep

See = Callable[[Key, Any, TimeStep], tuple[Any, Any]]  # memory, timestep -> memory, observation
Do = Callable[[Key, Any, TimeStep, Any], tuple[Any, Any]]  # memory, timestep, action -> both anew


def hide(env: Environment, *columns: int) -> Environment:
    """Remove some numbers, by their index, from observations that are one vector [D].

    E.g. the velocities of CartPole-v1, 1 and 3. Raises ValueError for indices that are out of range
    or none at all, if nothing is left, and for observations of another kind.
    """
    space = env.spec.observations
    if not is_part(space) or len(space.shape) != 1:
        raise ValueError(f"hide: {space} is not one vector")
    width = space.shape[0]
    for column in columns:
        checks.at_least("hide", column, 0, width - 1)
    kept = np.array([i for i in range(width) if i not in columns], int)
    if not columns or not len(kept):
        raise ValueError(f"hide: {len(set(columns))} of {width} numbers leave nothing to do or see")
    if isinstance(space, Discrete):
        return view(env, lambda x: x[kept], Discrete(space.n, (len(kept),)))
    low, high = (bound if np.ndim(bound) == 0 else bound[kept] for bound in space[2:])
    return view(env, lambda x: x[kept], Continuous((len(kept),), space.dtype, low, high))


def flicker(env: Environment, chance: Any) -> Environment:
    """Show zeros instead of an observation with a chance, at every timestep anew.

    Hausknecht & Stone (2015), section 4, where it is 0.5. Raises ValueError unless it is from 0 to
    1.
    """
    checks.within("flicker", chance, 0, 1)

    def see(key: Key, memory: Any, timestep: TimeStep) -> tuple[Any, Any]:
        shown = timestep.observation
        blank = draws.bernoulli(key, chance)
        return memory, tree.where(blank, jax.tree.map(jnp.zeros_like, shown), shown)

    return _seeing(env, lambda timestep: (), see)


def noise(env: Environment, deviation: Any) -> Environment:
    """Add normal noise of a standard deviation to all floats, which are clipped to their bounds.

    Raises ValueError unless it is at least 0, and for observations without floats.
    """
    checks.within("noise", deviation, 0, FLOAT32)
    space = env.spec.observations
    if not any(map(_is_float, parts(space))):
        raise ValueError(f"noise: {space} has no floats")

    def see(key: Key, memory: Any, timestep: TimeStep) -> tuple[Any, Any]:
        keys = iter(draws.split(key, len(parts(space))))

        def noisy(part: Any, x: Array) -> Array:
            own = next(keys)
            if not _is_float(part):
                return x
            return jnp.clip(
                x + deviation * draws.normal(own, x.shape, x.dtype), part.low, part.high
            )

        return memory, over(noisy, space, timestep.observation)

    return _seeing(env, lambda timestep: (), see)


def delay(env: Environment, steps: int) -> Environment:
    """Show the observation of `steps` timesteps ago; until then, the first one of the episode.

    Raises ValueError unless `steps` is from 1 on.
    """
    checks.positive("delay", steps, checks.UNROLLED)

    def begin(timestep: TimeStep) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x] * steps), timestep.observation)

    def see(key: Key, memory: Any, timestep: TimeStep) -> tuple[Any, Any]:
        memory = tree.where(timestep.start, begin(timestep), memory)
        return tree.at(tree.append(memory, timestep.observation), slice(1, None)), tree.at(
            memory, 0
        )

    return _seeing(env, begin, see)


def drop(env: Environment, chance: Any) -> Environment:
    """Show the last observation again with a chance; the first of an episode is always shown.

    Raises ValueError unless `chance` is from 0 to 1.
    """
    checks.within("drop", chance, 0, 1)

    def see(key: Key, memory: Any, timestep: TimeStep) -> tuple[Any, Any]:
        again = draws.bernoulli(key, chance) & ~timestep.start
        shown = tree.where(again, memory, timestep.observation)
        return shown, shown

    return _seeing(env, lambda timestep: timestep.observation, see)


def sticky(env: Environment, chance: Any) -> Environment:
    """Do the last action again with a chance, instead of the one that was chosen.

    Not with an episode's first action. Timesteps tell which action was chosen. Machado et al.
    (2018), section 5.2, where it is 0.25. Raises ValueError unless it is from 0 to 1, and for
    environments that may forbid actions.
    """
    checks.within("sticky", chance, 0, 1)
    if env.spec.legal:
        raise ValueError(f"sticky: {chance} would do actions again that are not legal any more")

    def do(key: Key, memory: Any, timestep: TimeStep, action: Any) -> tuple[Any, Any]:
        again = draws.bernoulli(key, chance) & ~timestep.start
        done = tree.where(again, memory, action)
        return done, done

    return _acting(env, lambda timestep: timestep.action, do)


def random_start(env: Environment, most: int) -> Environment:
    """Do random legal actions instead of the first ones of an episode: 0 to `most` of them.

    How many is drawn anew for every episode. Timesteps tell which action was chosen. Raises
    ValueError unless `most` is from 1 on.
    """
    checks.positive("random_start", most)

    def do(key: Key, memory: Array, timestep: TimeStep, action: Any) -> tuple[Any, Any]:
        count_key, key = draws.split(key)
        left = jnp.where(timestep.start, draws.randint(count_key, (), 0, most + 1), memory)
        random = draw(env.spec.actions, key, timestep.legal)
        return jnp.maximum(left - 1, 0), tree.where(left > 0, random, action)

    return _acting(env, lambda timestep: jnp.int32(0), do)


def _is_float(part: Any) -> bool:
    return isinstance(part, Continuous) and bool(jnp.issubdtype(part.dtype, jnp.floating))


def _seeing(env: Environment, begin: Callable[[TimeStep], Any], see: See) -> Environment:
    """Show what `see` makes of every timestep; its memory is first what `begin` returns."""

    def shown(key: Key, inner: Any, memory: Any, timestep: TimeStep) -> tuple[Any, TimeStep]:
        memory, observation = see(key, memory, timestep)
        return (inner, memory), timestep._replace(observation=observation)

    def reset(key: Key) -> tuple[Any, TimeStep]:
        key, see_key = draws.split(key)
        inner, timestep = env.reset(key)
        return shown(see_key, inner, begin(timestep), timestep)

    def step(key: Key, state: Any, action: Any) -> tuple[Any, TimeStep]:
        key, see_key = draws.split(key)
        inner, timestep = env.step(key, state[0], action)
        return shown(see_key, inner, state[1], timestep)

    return env._replace(reset=reset, step=step)


def _acting(env: Environment, begin: Callable[[TimeStep], Any], do: Do) -> Environment:
    """Take the actions that `do` makes of the chosen ones; its memory is first that of `begin`."""

    def reset(key: Key) -> tuple[Any, TimeStep]:
        inner, timestep = env.reset(key)
        return (inner, begin(timestep), timestep), timestep

    def step(key: Key, state: Any, action: Any) -> tuple[Any, TimeStep]:
        inner, memory, before = state
        key, do_key = draws.split(key)
        memory, done = do(do_key, memory, before, action)
        inner, timestep = env.step(key, inner, done)
        chosen = tree.where(timestep.start, timestep.action, action)
        timestep = timestep._replace(action=chosen)
        return (inner, memory, timestep), timestep

    return env._replace(reset=reset, step=step)


VIEWS: dict[str, Callable[..., Environment]] = {
    "hide": hide,
    "flicker": flicker,
    "noise": noise,
    "delay": delay,
    "drop": drop,
    "sticky": sticky,
    "random_start": random_start,
}


def through(env: Environment, views: Sequence[str]) -> Environment:
    """Apply views, each named with its numbers as in "hide=2,3", the first one first.

    Raises ValueError for an unknown name, for what are no numbers, and as each view does.
    """
    return reduce(_applied, views, env)


def _applied(env: Environment, given: str) -> Environment:
    name, _, text = given.partition("=")
    make = VIEWS[checks.known("view", name, VIEWS)]
    numbers = [_number(given, x) for x in text.split(",")]
    if len(numbers) > 1 and make is not hide:
        raise ValueError(f"view: {given!r} has {len(numbers)} numbers; {name} takes one")
    return make(env, *numbers)


def _number(given: str, text: str) -> float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"view: {given!r} needs numbers after '=', as in 'hide=2,3'")
