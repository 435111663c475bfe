"""Diagnostics of memories, in trained agents and during training.

They take plain functions, and so work for a bare memory, a supervised model or an agent's network.
Tables over time and lag are [T, K]: row t is an output, column k is for the step k before it, NaN
where k > t. `plot.sensitivity`, `plot.erasure` and `plot.extrapolation` draw the results.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from memrl_jax import checks, draws, parallel, tree
from memrl_jax.types import Array, Key, Network, State, TimeStep


def sensitivity(unroll: Callable[[Any], Array], xs: Any) -> Array:
    """Return how strongly each output depends on each earlier input, [T, K = T].

    Entry [t, k] is the Frobenius norm of d output[t] / d input[t - k], exact, and 0 across a reset.
    `unroll` maps inputs, a pytree of floats [T, ...], to outputs [T, ...]: for a bare memory

        lambda xs: memory.unroll(params, memory.initial_state(), xs, starts)[1]

    and for an agent's network, with timesteps [T, B] and norms over the whole batch,

        lambda xs: network.unroll(params, state, timestep._replace(observation=xs))[1]

    Costs T backward passes, one after another, each vmapped over the elements of an output. Raises
    ValueError for inputs that are not floats and for outputs of another length.
    """
    steps = _steps(xs)
    for x in jax.tree.leaves(xs):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"xs: {x.dtype} is not a float type, so it has no gradient")
    outputs, pull = jax.vjp(unroll, xs)
    if not outputs.ndim or len(outputs) != steps:
        count = len(outputs) if outputs.ndim else 0
        raise ValueError(f"unroll: {count} outputs are not one for each of {steps} inputs")
    size = outputs[0].size

    def by_input(t: Array) -> Array:
        parts = jnp.zeros((size, steps, size), outputs.dtype).at[:, t].set(jnp.eye(size))
        (gradients,) = jax.vmap(pull)(parts.reshape(size, *outputs.shape))
        squares = [jnp.square(g).reshape(size, steps, -1) for g in jax.tree.leaves(gradients)]
        return jnp.sqrt(sum(x.sum(axis=(0, 2)) for x in squares))

    return _by_lag(jax.lax.map(by_input, jnp.arange(steps)))


def erasure(step: Callable[[State, Any], tuple[State, Array]], initial: State, xs: Any) -> Array:
    """Return how much each output changes if the memory is erased some steps before, [T, K = T].

    Entry [t, k] is the L2 distance between output[t] as it is and as it would be if `initial` had
    replaced the memory just before step t - k; for k = 0 only the present input is left. `step`
    maps a state and one of `xs`, a pytree [T, ...], to the next state and an output: for a bare
    memory

        lambda state, x: memory.step(params, state, *x)

    with xs = (inputs, starts); for an agent's network `partial(network.step, params)`, with
    timesteps [T, B] and distances over the whole batch. Both sequences begin from `initial`.
    Holds T memories at a time.
    """
    times = jnp.arange(_steps(xs))
    _, intact = jax.lax.scan(step, initial, xs)

    def erased_before(erased: Array) -> Array:
        def forgetful(state: State, now: Any) -> tuple[State, Array]:
            t, x, output = now
            state, other = step(tree.where(t == erased, initial, state), x)
            return state, jnp.linalg.norm(jnp.ravel(other - output))

        return jax.lax.scan(forgetful, initial, (times, xs, intact))[1]

    return _by_lag(jax.vmap(erased_before)(times).T)


def record(
    step: Callable[[State, Any], tuple[State, Any]],
    inspect: Callable[[State, Any], dict[str, Array]],
    initial: State,
    xs: Any,
) -> dict[str, Array]:
    """Return what a memory attends to, reads and writes at every step of a sequence, [T, ...].

    `inspect` describes the step that `step` takes with the same arguments, a state and one of `xs`,
    a pytree [T, ...]: for a bare memory

        lambda state, x: memory.inspect(params, state, *x)

    with xs = (inputs, starts) and the `step` of `erasure`; for an agent's network
    `partial(network.inspect, params)`, with timesteps [T, B]. See `NeuralMemory` for the names;
    `rollout.player` records the same, with values and policy, of an episode that an agent plays;
    `plot.addresses` and `plot.attention` draw the record.
    """

    def inspected(state: State, x: Any) -> tuple[State, dict[str, Array]]:
        found = inspect(state, x)
        return step(state, x)[0], found

    return jax.lax.scan(inspected, initial, xs, length=_steps(xs))[1]


def memory_span(table: Array, fraction: float = 0.01) -> Array:
    """Return how many steps back a table [T, K] of `sensitivity` or `erasure` reaches, float32 [].

    It is the largest lag at which the mean over t is at least `fraction` of its largest value over
    lags. The mean includes entries across a reset, which are 0. K - 1 means that the table is too
    short to tell. NaN if the table is all 0, or has a NaN where k <= t. Raises ValueError for a
    `fraction` outside (0, 1] and for a table that is not [T, K].
    """
    checks.kind("fraction", fraction, float)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: {fraction} is not inside (0, 1]")
    if jnp.ndim(table) != 2 or not jnp.size(table):
        raise ValueError(f"table: shape {jnp.shape(table)} is not [T, K]")
    if jnp.iscomplexobj(table):
        raise ValueError(f"table: {table.dtype} is not a type of real numbers")
    steps, lags = table.shape
    lag = jnp.arange(lags)
    exists = lag <= jnp.arange(steps)[:, None]
    mean = jnp.where(exists, table, 0).sum(axis=0) / (steps - lag)
    reached = jnp.where(mean >= fraction * mean.max(), lag, 0).max()
    return jnp.where(mean.max() > 0, reached.astype(jnp.float32), jnp.nan)


def extrapolation(
    play: Callable[[int, Key, State], Array], lengths: Sequence[int], keys: Key, states: State
) -> Array:
    """Return the success of every seed at every length of a task, [S, lengths].

    `play` maps a length, a key of `keys` [S] and a state of `states` [S, ...] to a number. For
    trained agents of a config it is

        def play(corridor, key, state):
            options = {**config.environment_args, "corridor": corridor}
            trainer, _ = make(config.replace(environment_args=options))
            return trainer.evaluate(key, state, 100).total.mean()

    with the `make` of `memrl_jax.build`. Compiles once per length. Raises ValueError without a
    length, and for one below 1.
    """
    checks.positive("len(lengths)", len(lengths))
    for length in lengths:
        checks.positive("lengths", length)
    seeds = len(keys)
    players = parallel.pad((keys, states), seeds)

    def success(index: int, length: int) -> Array:
        def one(player: tuple[Key, State]) -> Array:
            key, state = player
            return play(length, draws.fold_in(key, index), state)

        return parallel.over_seeds(one, seeds)(players)[:seeds]

    return jnp.stack([success(*pair) for pair in enumerate(lengths)], axis=1)


def delta_q(
    network: Network,
    params: Any,
    timestep: TimeStep,
    memory: State,
    truth: State,
    burn_in: int = 0,
) -> Array:
    """Return how far Q from a replayed memory is from Q from the true one, [L - burn_in, N].

    The network is unrolled over the same `timestep` [L, N], whose `start` must be true to the
    episodes, from two memories: `memory` [N, ...], as replay gives it, and `truth` [N, ...], as
    these `params` produce it from the episode's start on. After `burn_in` timesteps, the L2
    distance between the action values is divided by the largest absolute true value that follows.
    Raises ValueError for a burn-in that leaves no timestep. Kapturowski et al. (2019), section 3.1.
    """
    checks.at_least("burn_in", burn_in, 0, len(timestep.reward) - 1)
    _, q = network.unroll(params, memory, timestep)
    _, q_true = network.unroll(params, truth, timestep)
    q, q_true = q[burn_in:], q_true[burn_in:]
    return jnp.linalg.norm(q - q_true, axis=-1) / jnp.max(jnp.abs(q_true), axis=(0, -1))


def _steps(xs: Any) -> int:
    """Return how long a sequence is; raises ValueError for one without a step."""
    shapes = {jnp.shape(x) for x in jax.tree.leaves(xs)}
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"xs: shapes {sorted(shapes)} are not all [T, ...], with T above 0")
    return lengths.pop()


def _by_lag(table: Array) -> Array:
    """Turn a table [t, i] of outputs and earlier steps into [t, k = t - i], NaN where k > t."""
    t = jnp.arange(len(table))[:, None]
    k = t.T
    return jnp.where(k <= t, table[t, t - k], jnp.nan)
