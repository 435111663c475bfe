"""Conversion of gymnax's and gymnasium's spaces, and of their elements, to our types and back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax.environments.declared import blamed, check_actions, dtype_and_shape
from memrl_jax.spaces import Continuous, Discrete

# An environment may declare its spaces in our types, which spares the import of gymnax. Its class
# must do so: a wrapper's instance passes on attributes of what it wraps, whose spaces may differ.

NARROW = {"float64": jnp.float32, "int64": jnp.int32, "uint64": jnp.uint32}


class Part(NamedTuple):
    """A foreign space, and how its elements are converted; these may have leading axes."""

    space: Any  # in our types
    ours: Callable[[Any], Any]  # their element -> ours
    theirs: Callable[[Any], Any]  # our element -> theirs


def actions(what: str, env: Any, params: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the space of actions in our types, and the function from our actions to theirs."""
    if hasattr(type(env), "actions"):
        check_actions(f"{what}: actions", env.actions)
        return env.actions, _same
    with blamed(f"{what}: action_space"):
        given = env.action_space(params)
    found = converted(f"{what}: actions", given, acting=True)
    check_actions(f"{what}: actions", found.space)
    return found.space, found.theirs


def observations(
    what: str, env: Any, params: Any, observation: Any
) -> tuple[Any, Callable[[Any], Any]]:
    """Return the space of observations in our types, and the function from theirs to ours.

    The space is arranged like `observation`, one of theirs.
    """
    if hasattr(type(env), "observations"):
        return env.observations, _same
    with blamed(f"{what}: observation_space"):
        given = env.observation_space(params)
    parts = _arranged(f"{what}: observation", given, observation)
    structure = jax.tree.structure(observation)

    def ours(x: Any) -> Any:
        leaves = zip(parts, jax.tree.leaves(x), strict=True)
        return jax.tree.unflatten(structure, [part.ours(leaf) for part, leaf in leaves])

    return jax.tree.unflatten(structure, [part.space for part in parts]), ours


def _same(x: Any) -> Any:
    return x


def converted(field: str, given: Any, acting: bool = False) -> Part:
    """Convert a space with all its parts: a dictionary stays a dictionary, a sequence a tuple.

    Bits, which an observation keeps in one array, are a tuple of `Discrete` if `acting`.
    """
    # An element of OneOf has but one of its parts.
    if not hasattr(given, "spaces") or type(given).__name__ == "OneOf":
        return _part(field, given, given, acting)
    by_name = isinstance(given.spaces, Mapping)
    children = given.spaces if by_name else dict(enumerate(given.spaces))
    parts = {k: converted(f"{field}[{k!r}]", child, acting) for k, child in children.items()}

    def packed(x: dict[Any, Any]) -> Any:
        return x if by_name else tuple(x.values())

    def ours(x: Any) -> Any:
        return packed({name: part.ours(x[name]) for name, part in parts.items()})

    def theirs(x: Any) -> Any:
        return packed({name: part.theirs(x[name]) for name, part in parts.items()})

    return Part(packed({name: part.space for name, part in parts.items()}), ours, theirs)


def _arranged(field: str, given: Any, x: Any) -> list[Part]:
    """Convert a space of observations, leaf by leaf in the order of its element `x`."""
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
    """Return the dictionary key, or the field of another container, that a path begins with."""
    return getattr(path[0], "key", getattr(path[0], "name", None)) if path else None


def _part(field: str, given: Any, x: Any, acting: bool = False) -> Part:
    """Convert a space without parts; shape and dtype are those of its element `x`.

    Some of gymnax's spaces declare other ones. Integers that do not start at 0 are shifted.
    """
    name = type(given).__name__
    if not hasattr(x, "dtype"):
        raise ValueError(f"{field} is a {type(x).__name__}, and its space a {name}")
    if hasattr(given, "nvec"):
        return _several(field, given, x, np.asarray(given.nvec))
    if hasattr(given, "n") and given.shape:
        if acting:
            return _several(field, given, x, np.full(given.shape, 2))
        return Part(Discrete(2, tuple(given.shape)), _same, _same)
    if hasattr(given, "n"):
        first = int(getattr(given, "start", 0))
        shift = (lambda x: x - first, lambda x: x + first) if first else (_same, _same)
        return Part(Discrete(int(given.n)), *shift)
    if not hasattr(given, "low"):
        raise ValueError(
            f"{field}: space {name} is none of Discrete, MultiDiscrete, MultiBinary, Box, Dict and "
            "Tuple"
        )
    return Part(Continuous(tuple(x.shape), jnp.dtype(x.dtype), given.low, given.high), _same, _same)


def _several(field: str, given: Any, x: Any, counts: np.ndarray) -> Part:
    """Convert an array of `counts` to a tuple of `Discrete`, in row-major order."""
    first = np.broadcast_to(getattr(given, "start", 0), counts.shape).astype(np.int32)
    if x.shape != counts.shape or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"{field} is {dtype_and_shape(x)}, and its space has {[*counts.shape]} integers"
        )

    def ours(x: Any) -> tuple[Any, ...]:
        flat = (x - first).reshape(*x.shape[: x.ndim - counts.ndim], -1)
        return tuple(flat[..., i] for i in range(counts.size))

    def theirs(x: tuple[Any, ...]) -> Any:
        array: Any = np if isinstance(x[0], np.ndarray | np.generic) else jnp
        return array.stack(x, axis=-1).reshape(*x[0].shape, *counts.shape) + first

    return Part(tuple(Discrete(int(n)) for n in counts.ravel()), ours, theirs)


def narrow(field: str, part: Discrete | Continuous) -> Discrete | Continuous:
    """Declare 32 bits in place of 64; raises ValueError for integers that do not fit."""
    if isinstance(part, Discrete) or part.dtype.name not in NARROW:
        return part
    dtype = jnp.dtype(NARROW[part.dtype.name])
    with np.errstate(over="ignore"):  # of floats: to infinity
        low, high = (np.asarray(bound).astype(dtype) for bound in (part.low, part.high))
    if dtype.kind != "f" and not (np.all(low == part.low) and np.all(high == part.high)):
        bounds = f"from {np.min(part.low)} to {np.max(part.high)}"
        raise ValueError(f"{field}: {part.dtype} {bounds} does not fit in {dtype}")
    return Continuous(part.shape, dtype, low, high)


def own(space: Any, x: Any) -> Any:
    """Cast elements [...] to the dtypes of a gymnasium space, and to its bounds.

    32 bits may round a bound of 64 to what is beyond it.
    """
    if hasattr(space, "spaces"):
        by_name = isinstance(space.spaces, Mapping)
        parts = space.spaces.items() if by_name else enumerate(space.spaces)
        cast = {name: own(part, x[name]) for name, part in parts}
        return cast if by_name else tuple(cast.values())
    x = np.asarray(x, space.dtype)
    return np.clip(x, space.low, space.high) if hasattr(space, "low") else x[()]
