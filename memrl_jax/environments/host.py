"""Environments of Gymnasium, which are stepped on the host: by Python, outside of any jit."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from memrl_jax import checks, spaces, tree
from memrl_jax.environments.autoreset import Arrived, stream
from memrl_jax.environments.declared import blamed, check_actions, check_declared
from memrl_jax.environments.foreign import Part, converted, narrow, own
from memrl_jax.spaces import Discrete, over
from memrl_jax.types import Spec, TimeStep

GYMNASIUM = "gymnasium:"  # in a config, names of such environments begin so
HORIZON = 10_000  # of those that declare no limit


class HostEnvironment(NamedTuple):
    """B copies of an environment that lives outside of JAX.

    `reset` and `step` are impure: they change the copies, which are stepped together and have no
    state that could be stored. Their timesteps [B, ...] are new NumPy arrays. As everywhere, the
    true last observation of an episode is a timestep of its own, and the step after it, whose
    action is ignored, begins the next one.
    """

    spec: Spec
    horizon: int  # no episode is longer than this many steps
    reset: Callable[[int], TimeStep]  # seed -> the first timestep of new episodes in all copies
    step: Callable[[Any], TimeStep]  # actions [B, ...] of the spec, NumPy -> TimeStep
    close: Callable[[], None]
    ours: Callable[[Any], Any]  # observations [...] in their own form -> as in the spec, NumPy
    theirs: Callable[[Any], Any]  # actions [...] as in the spec, NumPy -> in their own form


def on_host(name: str) -> bool:
    """Tell whether a config's name of an environment is one of gymnasium's."""
    return name.startswith(GYMNASIUM)


def from_gymnasium(
    id_or_factory: Any, environments: int, /, vectorization: str | None = None, **options: Any
) -> HostEnvironment:
    """Adapt B = `environments` copies of a gymnasium environment.

    The first argument is an id, `module:id` too; or a function that makes an `Env`, a new one at
    every call, or a `VectorEnv` of B copies; or one of these as it is. `options` go to
    `gymnasium.make` or to the function. Copies are stepped one after another ("sync", the default)
    or each in a process of its own ("async"); a `VectorEnv` may have any autoreset mode, see
    `autoreset`. Copy i is reset with seed + i.

    Spaces may be Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple. Discrete ones that
    start at another number are shifted to 0, several discrete actions become a tuple, 64 bits
    become 32; actions are handed over in the dtype and within the bounds of their own space. An
    `action_mask` [n] in the info, for one discrete action, becomes `legal`. `horizon` is the
    environment's `max_episode_steps`, or 10 000 without a limit.

    Raises ValueError, in one line, for an unknown id, another space or number of copies, for what
    is not as its space declares, and, in every step too, for an error inside the environment.
    """
    checks.positive("environments", environments)
    what = f"environment: {_name(id_or_factory)}"
    vector, limit = _vector(what, id_or_factory, environments, vectorization, options)
    acting = vector.single_action_space
    seen = converted(f"{what}: observations", vector.single_observation_space)
    acted = converted(f"{what}: actions", acting, acting=True)
    observations = over(partial(narrow, f"{what}: observations"), seen.space)
    actions = over(partial(narrow, f"{what}: actions"), acted.space)
    check_actions(f"{what}: actions", actions)
    with blamed(f"{what}: reset"):
        first, info = vector.reset(seed=0)
    ours = partial(_ours, seen, over(spaces.dtype, observations))
    with blamed(f"{what}: observations"):
        one = tree.at(ours(first), 0)
    check_declared(f"{what}: observations", observations, one)
    spec = Spec(observations, actions, _masked(what, actions, info))
    reset, step = _timesteps(what, vector, spec, ours, partial(_theirs, acted, acting))
    return HostEnvironment(
        spec, limit or HORIZON, reset, step, vector.close, ours, partial(_theirs, acted, acting)
    )


def _name(source: Any) -> str:
    if isinstance(source, str):
        return f"{GYMNASIUM}{source}"
    return getattr(source, "__name__", type(source).__name__)


def _vector(
    what: str, source: Any, copies: int, vectorization: str | None, options: dict[str, Any]
) -> tuple[Any, int | None]:
    """Return a `VectorEnv` of B copies, and the limit on the steps of an episode."""
    import gymnasium
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

    make = partial(gymnasium.make, source) if isinstance(source, str) else source
    if options and not callable(make):
        raise ValueError(f"{what}: {', '.join(options)} of what is made already")
    with blamed(what):
        made = make(**options) if callable(make) else make
    limit = getattr(made.spec, "max_episode_steps", None) if hasattr(made, "spec") else None
    if isinstance(made, VectorEnv):
        if made.num_envs != copies:
            raise ValueError(f"environments: {copies} are not the {made.num_envs} of {what}")
        if vectorization is not None:
            raise ValueError(f"vectorization: {vectorization} of what is a VectorEnv already")
        return made, limit
    if not isinstance(made, gymnasium.Env):
        raise ValueError(f"{what}: {type(made).__name__} is neither Env nor VectorEnv of gymnasium")
    again = partial(make, **options) if callable(make) else lambda: made
    if checks.known("vectorization", vectorization or "sync", ("sync", "async")) == "async":
        made.close()
        with blamed(what):
            # Processes that are forked would inherit the locks of JAX's threads.
            return AsyncVectorEnv([again] * copies, context="spawn"), limit
    with blamed(what):
        envs = [made, *(again() for _ in range(copies - 1))]
    if len({id(env) for env in envs}) < copies:
        raise ValueError(f"environments: {copies} copies of {what} are one and the same object")
    return SyncVectorEnv([partial(_same, env) for env in envs]), limit


def _same(x: Any) -> Any:
    return x


def _timesteps(
    what: str, vector: Any, spec: Spec, ours: Callable[[Any], Any], theirs: Callable[[Any], Any]
) -> tuple[Callable[[int], TimeStep], Callable[[Any], TimeStep]]:
    """Return `reset` and `step` of a `HostEnvironment`."""
    copies = vector.num_envs
    none = over(lambda part: np.zeros((copies, *part.shape), spaces.dtype(part)), spec.actions)
    arrive, advance = stream(vector, _mode(what, vector), ours, partial(_masks, spec, copies))

    def reset(seed: int) -> TimeStep:
        with blamed(f"{what}: reset"):
            arrived = arrive(seed)
            return _timestep(arrived, _where(arrived.start, none, none))

    def step(action: Any) -> TimeStep:
        with blamed(f"{what}: step"):
            arrived = advance(theirs(action))
            return _timestep(arrived, _where(arrived.start, none, action))

    return reset, step


def _mode(what: str, vector: Any) -> str:
    """Return gymnasium's name of the autoreset mode."""
    from gymnasium.vector import AutoresetMode

    given = vector.metadata.get("autoreset_mode")
    if given is None:
        raise ValueError(f"{what}: metadata tells no autoreset_mode")
    with blamed(f"{what}: autoreset_mode"):
        return str(AutoresetMode(given).value)


def _timestep(arrived: Arrived, action: Any) -> TimeStep:
    last: Any = arrived.terminated | arrived.truncated
    reward: Any = np.float32(arrived.reward)
    discount: Any = np.float32(~arrived.terminated)
    legal = _allowed(arrived.seen.mask, last)
    return TimeStep(arrived.seen.observation, action, reward, discount, arrived.start, last, legal)


def _where(rows: np.ndarray, x: Any, y: Any) -> Any:
    """Choose `x` in rows [B] and `y` in the others, in the dtypes of `x`."""

    def choose(x: np.ndarray, y: Any) -> np.ndarray:
        return np.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, np.asarray(y, x.dtype))

    return jax.tree.map(choose, x, y)


def _masked(what: str, actions: Any, info: dict[str, Any]) -> bool:
    """Tell whether there are masks of actions."""
    if "action_mask" in info and not isinstance(actions, Discrete):
        raise ValueError(f"{what}: action_mask is for one Discrete action, not for {actions}")
    return "action_mask" in info


def _masks(spec: Spec, copies: int, info: dict[str, Any]) -> Any:
    """Read the masks [B, n] in an info, which allow nothing where none is told; () without any."""
    if not spec.legal:
        return ()
    shape = copies, spec.actions.n
    given = np.asarray(info.get("action_mask", np.zeros(shape, bool)))
    if given.shape != shape:
        raise ValueError(f"action_mask is {given.dtype}{[*given.shape]}, not {[*shape]}")
    return given.astype(bool) & np.asarray(info.get("_action_mask", True))[..., None]


def _allowed(mask: Any, last: np.ndarray) -> Any:
    """Return masks [B, n] that allow everything where an episode ends and none is told."""
    if isinstance(mask, tuple):
        return mask
    nothing = ~np.any(mask, axis=-1)
    if np.any(nothing & ~last):
        raise ValueError("action_mask is missing or allows nothing")
    return mask | nothing[:, None]


def _ours(seen: Part, dtypes: Any, observation: Any) -> Any:
    """Convert observations [...] to new arrays in our types."""
    return jax.tree.map(np.array, seen.ours(observation), dtypes)


def _theirs(acted: Part, space: Any, action: Any) -> Any:
    """Convert actions [...] to what a gymnasium space holds."""
    return own(space, acted.theirs(action))
