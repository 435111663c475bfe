"""Whether a memory keeps to what agents rely on."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memrl_jax import build, checks
from memrl_jax.settings import BodyConfig
from memrl_jax.testing.differences import finite, same
from memrl_jax.testing.memory_trial import BATCH, RESET, T, Trial, late_gradients, try_out
from memrl_jax.types import NeuralMemory

LONG, LONGEST = 16 * T, 1000  # steps that are unrolled in parts; that a gradient is sent through


def check_memory(memory: Any, inputs: int = 3, seed: int = 0, **options: Any) -> None:
    """Check a memory on random sequences: pass in silence, or say what to mend.

    `memory` is a name, a `NeuralMemory`, or a function that returns one from `options`; `inputs` is
    the number of features that it sees at a step. Raises ValueError in one line, with the step, if

    - `step` or `unroll` change a structure, shape or dtype, or return other outputs;
    - `init` gives other parameters for the same key;
    - `unroll` is not `step` repeated, in outputs, last state or gradients (unless it cuts those by
      design), or does not go on where it stopped;
    - sequences that are unrolled together under `vmap` differ from each alone;
    - anything from before a `start` is seen after it: a state, an input, a time, NaN, a gradient;
    - without a `start` nothing is learned from what came before, or a gradient is not finite.
    """
    memory, name = _made(memory, options)
    trial = try_out(memory, checks.positive("inputs", inputs), seed, name)
    for holds in PROPERTIES:
        holds(trial)


def _made(memory: Any, options: dict[str, Any]) -> tuple[NeuralMemory, str]:
    """Return the memory, and what messages begin with."""
    if isinstance(memory, str):
        given = BodyConfig(memory=memory, memory_args=options)
        return build.make_memory(given), f"memory: {memory}"
    made = memory if isinstance(memory, NeuralMemory) else memory(**options)
    checks.kind("memory", made, NeuralMemory)
    return made, "memory"


def init_is_a_function_of_the_key(trial: Trial) -> None:
    """Trace it anew: what it draws from elsewhere is drawn again."""
    key, x = jax.random.key(1), trial.inputs(0)[0]
    again = jax.jit(lambda key, x: trial.memory.init(key, x))
    what = f"{trial.name}: init: the same key gives other parameters: params"
    same(what, again(key, x), trial.init(key, x))


def unroll_is_repeated_step(trial: Trial) -> None:
    """Outputs and the last state are the same."""
    xs, starts = trial.inputs(T, T)
    whole, ys = trial.unroll(trial.state, xs, starts)
    state, what = trial.state, f"{trial.name}: step differs from unroll"
    for t in range(T):
        state, y = trial.step(state, xs[t], starts[t])
        same(f"{what}: y", y[None], ys[t : t + 1], first=t)
    same(f"{what}: state", state, whole)


def unroll_goes_on_where_it_stopped(trial: Trial) -> None:
    """Its states may be handed on at any step."""
    xs, starts = trial.inputs(T, T)
    whole, ys = trial.unroll(trial.state, xs, starts)
    state, what = trial.state, f"{trial.name}: unroll step by step differs from one of {T}"
    for t in range(T):
        state, y = trial.unroll(state, xs[t : t + 1], starts[t : t + 1])
        same(f"{what}: y", y, ys[t : t + 1], first=t)
    same(f"{what}: state", state, whole)


def long_sequences_unroll_as_short_ones_one_after_another(trial: Trial) -> None:
    """Whatever way of scanning is chosen for their length."""
    xs, starts = trial.inputs(7, BATCH, LONG)
    starts &= np.random.default_rng(8).uniform(size=starts.shape) < 0.1  # some 5 in all
    whole, ys = trial.batched_unroll(trial.states, xs, starts)
    state, what = trial.states, f"{trial.name}: unroll of {LONG} steps differs from that of {T}"
    for t in range(0, LONG, T):
        state, y = trial.batched_unroll(state, xs[:, t : t + T], starts[:, t : t + T])
        y, due = (np.swapaxes(x, 0, 1) for x in (ys[:, t : t + T], y))
        same(f"{what}: y", y, due, first=t)
    same(f"{what}: state", whole, state)


def sequences_of_a_batch_do_not_meet(trial: Trial) -> None:
    """Each does what it does alone."""
    xs, starts = trial.inputs(1, BATCH, T)
    states, ys = trial.batched_unroll(trial.states, xs, starts)
    for b in range(BATCH):
        ours, state = jax.tree.map(lambda x, b=b: x[b], ((states, ys), trial.states))
        end, alone = trial.unroll(state, xs[b], starts[b])
        what = f"{trial.name}: under vmap, sequence {b} differs from itself alone"
        same(f"{what}: y", ours[1], alone, first=0)
        same(f"{what}: state", ours[0], end)


def a_start_is_a_fresh_start(trial: Trial) -> None:
    """Bit for bit whatever came before it, and but for rounding whenever it comes."""
    for at in (0, 1, T // 2, T - 1):
        xs, starts = trial.inputs(at, T)
        starts[: at + 1] = np.arange(at + 1) == at
        end, ys = trial.unroll(trial.state, xs, starts)
        fresh = trial.memory.initial_state()
        other = np.where(np.arange(T)[:, None] < at, trial.inputs(100, T)[0], xs)
        after, zs = trial.unroll(fresh, other, starts)
        what = f"{trial.name}: what came before a start at step {at} is seen after it"
        same(f"{what}: y", ys[at:], zs[at:], 0, first=at)
        same(f"{what}: state", end, after, 0)
        shifted = np.roll(xs, -at, axis=0), np.roll(starts, -at) & (np.arange(T) > 0)
        first = trial.unroll(fresh, *shifted)[1][: T - at]
        what = f"{trial.name}: after a start at step {at} it is not as at first: y"
        same(what, ys[at:], first, first=at)


def not_even_nan_survives_a_start(trial: Trial) -> None:
    """Neither one in the state nor one in an input."""
    (xs, _), starts = trial.inputs(2, T), np.arange(T) == RESET
    end, ys = trial.unroll(trial.memory.initial_state(), xs, starts)
    xs[:RESET] = np.nan
    after, zs = trial.unroll(of_nan(trial.state), xs, starts)
    what = f"{trial.name}: NaN survives a start at step {RESET}"
    same(f"{what}: y", zs[RESET:], ys[RESET:], 0, first=RESET)
    same(f"{what}: state", after, end, 0)


def of_nan(state: Any) -> Any:
    """Return a state like this one, of NaN wherever there can be."""

    def nan(x: Any) -> Any:
        return np.full_like(x, np.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(nan, state)


def no_gradient_crosses_a_start(trial: Trial) -> None:
    """But for those that do, if there is none."""
    xs, _ = trial.inputs(3, T)
    for starts in (np.arange(T) == RESET, np.zeros(T, bool)):
        _, of_state, of_xs = trial.gradients(trial.params, trial.state, xs, starts)
        leaves = [x for x in jax.tree.leaves(of_state) if jnp.issubdtype(x.dtype, jnp.inexact)]
        reached = np.flatnonzero(np.any(of_xs[:RESET], axis=-1))
        what = f"{trial.name}: a gradient crosses a start at step {RESET}, to the"
        if starts.any() and reached.size:
            raise ValueError(f"{what} input at step {reached[-1]}")
        if starts.any() and any(np.any(x) for x in leaves):
            raise ValueError(f"{what} state at step 0")
        if leaves and not (starts.any() or reached.size):
            what = f"{trial.name}: no gradient from step {RESET} on"
            raise ValueError(f"{what} reaches an input before it, although there is no start")


def gradients_of_parameters_come_from_after_the_start(trial: Trial) -> None:
    """Other inputs before it change nothing."""
    (xs, _), starts = trial.inputs(4, T), np.arange(T) == RESET
    other = np.where(np.arange(T)[:, None] < RESET, 2.0, xs).astype(np.float32)
    ours, *_ = trial.gradients(trial.params, trial.state, xs, starts)
    theirs, *_ = trial.gradients(trial.params, trial.memory.initial_state(), other, starts)
    what = f"{trial.name}: what came before a start at step {RESET} changes later gradients: params"
    same(what, ours, theirs)


def gradients_of_unroll_are_those_of_repeated_step(trial: Trial) -> None:
    """By parameters, state and inputs; but for memories that send none to the state they are given.

    Those cut gradients between calls, as Transformer-XL does, and so between steps.
    """

    def repeated(params: Any, state: Any, xs: Any, starts: Any) -> Any:
        return jax.lax.scan(
            lambda state, x: trial.memory.step(params, state, *x), state, (xs, starts)
        )

    given = trial.params, trial.state, trial.inputs(5, T)[0], np.arange(T) == T // 2
    ours = trial.gradients(*given)
    of_state = jax.tree.leaves(_numbers(ours[1]))
    if of_state and not any(np.any(x) for x in of_state):
        return
    theirs = jax.jit(partial(late_gradients, repeated))(*given)
    for of, x, y in zip(("params", "state", "xs"), ours, theirs, strict=True):
        what = f"{trial.name}: gradients of unroll are not those of step: {of}"
        same(what, _numbers(x), _numbers(y), 1e-4)


def _numbers(gradients: Any) -> Any:
    """Put zeros where integers have no gradient."""

    def number(x: Any) -> Any:
        return np.zeros(x.shape) if x.dtype == jax.dtypes.float0 else x

    return jax.tree.map(number, gradients)


def gradients_of_long_sequences_are_finite(trial: Trial) -> None:
    """Those of the last output, also for large inputs."""
    start, starts = trial.memory.initial_state(), np.zeros(LONGEST, bool)

    def last(params: Any, xs: Any) -> Any:
        return jnp.sum(trial.memory.unroll(params, start, xs, starts)[1][-1] ** 2)

    gradient = jax.jit(jax.grad(last, (0, 1)))
    xs, _ = trial.inputs(8, LONGEST)
    for scale in (1.0, 10.0):
        of_params, of_xs = gradient(trial.params, scale * xs)
        what = f"{trial.name}: after {LONGEST} steps with inputs of {scale:g}, the gradient of"
        finite(f"{what} params", of_params)
        finite(f"{what} xs", of_xs)


PROPERTIES = (
    init_is_a_function_of_the_key,
    unroll_is_repeated_step,
    unroll_goes_on_where_it_stopped,
    sequences_of_a_batch_do_not_meet,
    a_start_is_a_fresh_start,
    not_even_nan_survives_a_start,
    no_gradient_crosses_a_start,
    gradients_of_parameters_come_from_after_the_start,
    gradients_of_unroll_are_those_of_repeated_step,
    long_sequences_unroll_as_short_ones_one_after_another,
    gradients_of_long_sequences_are_finite,
)
