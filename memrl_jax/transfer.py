"""Parts of the parameters of one agent, taken by another."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks
from memrl_jax.types import Agent, Key, State, TimeStep


def take(agent: Agent, state: State, params: Mapping[str, Any], parts: Sequence[str]) -> State:
    """Return an agent's state with `parts` of its parameters replaced by those in `params`.

    Parts are named as in `Agent.params`; `params` may be another agent's, with another head for
    another environment. Target networks and optimizers begin anew; all else stays as it is, also
    the running statistics of observations. Raises ValueError for parts that either does not have,
    and for arrays whose shapes or dtypes differ.
    """
    own = agent.params(state)
    for part in parts:
        checks.known("take", part, own)
        checks.known("take", part, params)
    taken = {part: _alike(part, own[part], params[part]) for part in parts}
    return agent.with_params(state, {**own, **taken})


def begin(agent: Agent, key: Key, timestep: TimeStep, taken: Mapping[str, Any] | None) -> State:
    """Return an agent's first state at timesteps [B, ...], with the parameters `taken`, by part."""
    state = agent.init(key, timestep)
    return take(agent, state, taken, [*taken]) if taken else state


def _alike(part: str, own: Any, given: Any) -> Any:
    """Return `given` in the structure of `own`; raises ValueError for an array of another kind."""
    ours, theirs = _leaves(part, own), _leaves(part, given)
    for path in {**ours, **theirs}:
        here, there = (_kind(leaves.get(path)) for leaves in (ours, theirs))
        if here != there:
            raise ValueError(f"take: {path} is {here} here, and {there} where it is taken from")
    return jax.tree.unflatten(jax.tree.structure(own), [jnp.asarray(theirs[x]) for x in ours])


def _leaves(part: str, params: Any) -> dict[str, Any]:
    """Return the arrays of a part by path, e.g. memory/params/Dense_0/kernel."""
    pairs = jax.tree_util.tree_leaves_with_path(params)
    named = ((jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in pairs)
    return {f"{part}/{path}".rstrip("/"): x for path, x in named}


def _kind(x: Any) -> str:
    return "missing" if x is None else f"{jnp.result_type(x)}{[*jnp.shape(x)]}"
