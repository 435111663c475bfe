"""Spaces of gymnax and gymnasium, in our types."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax.environments.check import blamed, space
from memrl_jax.spaces import Continuous, Discrete

# An environment may declare its spaces in our types, and so spare the import of gymnax. Its class
# has to: a wrapper's instance passes on the attributes of what it wraps, whose spaces may differ.


def actions(what: str, env: Any, params: Any) -> tuple[Discrete | Continuous, int]:
    """Return what can be done, and the first action if it is discrete, or else 0.

    Raises ValueError if it has several parts.
    """
    if hasattr(type(env), "actions"):
        found, first = env.actions, 0
    else:
        with blamed(f"{what}: action_space"):
            given = env.action_space(params)
        if hasattr(given, "spaces"):
            raise ValueError(f"{what} has composite actions, {type(given).__name__}")
        found, first = _part(f"{what}: actions", given, given)
    space(f"{what}: actions", found)
    return found, first


def observations(what: str, env: Any, params: Any, observation: Any) -> tuple[Any, Any]:
    """Return what is observed, arranged like `observation`, and the first integer of each part."""
    if hasattr(type(env), "observations"):
        return env.observations, jax.tree.map(lambda _: 0, observation)
    with blamed(f"{what}: observation_space"):
        given = env.observation_space(params)
    parts = _arranged(f"{what}: observation", given, observation)
    spaces, ids = zip(*parts, strict=True) if parts else ((), ())
    structure = jax.tree.structure(observation)
    return jax.tree.unflatten(structure, spaces), jax.tree.unflatten(structure, ids)


def _arranged(field: str, given: Any, x: Any) -> list[tuple[Discrete | Continuous, int]]:
    """Translate a space of gymnax, leaf by leaf in the order of its element `x`."""
    if not hasattr(given, "spaces"):
        return [_part(field, given, x)]
    children, _ = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda child: child is not x)
    by_name = isinstance(given.spaces, Mapping)
    told = list(given.spaces) if by_name else [*range(len(given.spaces))]
    seen = [_name(path) if by_name else i for i, (path, _) in enumerate(children)]
    if set(seen) != set(told):
        raise ValueError(f"{field} has parts {seen}, and its space {told}")
    return [
        part
        for name, (path, child) in zip(seen, children, strict=True)
        for part in _arranged(f"{field}{jax.tree_util.keystr(path)}", given.spaces[name], child)
    ]


def _name(path: tuple[Any, ...]) -> Any:
    """Return the key of a dictionary's part, or the field of another container's."""
    return getattr(path[0], "key", getattr(path[0], "name", None)) if path else None


def _part(field: str, given: Any, x: Any) -> tuple[Discrete | Continuous, int]:
    """Translate a space without parts, and tell its first integer.

    Shapes and dtypes are those of `x`, for some of gymnax's spaces declare others.
    """
    name = type(given).__name__
    if not hasattr(x, "dtype"):
        raise ValueError(f"{field} is a {type(x).__name__}, and its space a {name}")
    if hasattr(given, "n") and not given.shape:
        return Discrete(int(given.n)), int(getattr(given, "start", 0))
    if not hasattr(given, "low"):
        raise ValueError(f"{field}: space {name} is none of Discrete, Box, Dict and Tuple")
    return Continuous(tuple(x.shape), jnp.dtype(x.dtype), given.low, given.high), 0
