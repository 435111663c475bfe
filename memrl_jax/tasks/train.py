"""A small trainer of neural memories on tasks: an encoder, a memory, a head."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from memrl_jax import draws
from memrl_jax.checks import above, positive, typed
from memrl_jax.memory.states import checked
from memrl_jax.networks import MLP
from memrl_jax.tasks.base import Task, score
from memrl_jax.types import Array, Key, NeuralMemory, State

Metrics = dict[str, Array]  # sums over sequences: loss, errors, answers


class ProbeState(NamedTuple):
    """The state of training."""

    key: Key
    params: Any
    optimizer: Any


class Probe(NamedTuple):
    """Pure functions that train and evaluate a memory on a task.

    `evaluate` draws `count` fresh sequences of the task, or of another task `on`, such as the same
    one with longer sequences. Raises ValueError if the sizes of inputs and outputs differ.
    """

    init: Callable[[Key], ProbeState]
    step: Callable[[ProbeState], tuple[ProbeState, Metrics]]  # one batch, one update
    evaluate: Callable[..., Metrics]  # params, key, count, on=task -> Metrics
    predict: Callable[[Any, Array], Array]  # params, input [T, D] -> logits [T, O], by `unroll`
    predict_stepwise: Callable[[Any, Array], Array]  # the same, step by step


@typed
def make_probe(
    task: Task,
    memory: NeuralMemory,
    width: int = 64,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    max_gradient_norm: float = 1.0,
) -> Probe:
    """Train `memory` on `task`, between a ReLU layer of `width` and a linear head.

    A step draws `batch_size` fresh sequences and takes one step of Adam on the mean loss per
    answer, with gradients clipped to a global norm. Raises ValueError for sizes below 1, and for a
    rate or a norm that is not above 0.
    """
    positive("batch_size", batch_size)
    above("learning_rate", learning_rate, 0)
    above("max_gradient_norm", max_gradient_norm, 0)
    memory = checked(memory)
    encoder, head = MLP((positive("width", width),)), nn.Dense(task.outputs)
    optimizer = optax.chain(optax.clip_by_global_norm(max_gradient_norm), optax.adam(learning_rate))

    def init(key: Key) -> ProbeState:
        key, encoder_key, memory_key, head_key = draws.split(key, 4)
        encoder_params = encoder.init(encoder_key, jnp.zeros(task.inputs, jnp.float32))
        x = jnp.zeros(width, jnp.float32)
        memory_params = memory.init(memory_key, x)
        _, y = memory.step(memory_params, memory.initial_state(), x, jnp.array(True))
        params = {
            "encoder": encoder_params,
            "memory": memory_params,
            "head": head.init(head_key, y),
        }
        return ProbeState(key, params, optimizer.init(params))

    def predictor(run: Callable[..., Any]) -> Callable[[Any, Array], Any]:
        def predict(params: Any, input: Array) -> Any:
            xs = encoder.apply(params["encoder"], input)
            starts = jnp.arange(len(input)) == 0
            _, ys = run(params["memory"], memory.initial_state(), xs, starts)
            return head.apply(params["head"], ys)

        return predict

    def stepwise(params: Any, state: State, xs: Array, starts: Array) -> tuple[State, Array]:
        return jax.lax.scan(lambda state, x: memory.step(params, state, *x), state, (xs, starts))

    predict, predict_stepwise = predictor(memory.unroll), predictor(stepwise)

    def evaluate(params: Any, key: Key, count: int, on: Task = task) -> Metrics:
        _fits(on, task)
        examples = jax.vmap(on.sample)(draws.split(key, positive("count", count)))
        logits = jax.vmap(predict, in_axes=(None, 0))(params, examples.input)
        scores = jax.vmap(partial(score, on))(logits, examples)
        return jax.tree.map(jnp.sum, scores)

    def objective(params: Any, key: Key) -> tuple[Array, Metrics]:
        metrics = evaluate(params, key, batch_size)
        return metrics["loss"] / metrics["answers"], metrics

    def step(state: ProbeState) -> tuple[ProbeState, Metrics]:
        key, batch_key = draws.split(state.key)
        gradient, metrics = jax.grad(objective, has_aux=True)(state.params, batch_key)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return ProbeState(key, params, optimizer_state), metrics

    return Probe(init, step, evaluate, predict, predict_stepwise)


def _fits(task: Task, trained: Task) -> None:
    """Check that a network for `trained` can read and answer `task`."""
    ours, theirs = (task.inputs, task.outputs), (trained.inputs, trained.outputs)
    if ours != theirs:
        raise ValueError(
            f"on: {ours} inputs and outputs are not the {theirs} of the task trained on"
        )


def train(probe: Probe, key: Key, steps: int) -> tuple[ProbeState, Metrics]:
    """Initialize, then take `steps` steps; metrics [steps] are sums over each step's batch."""
    positive("steps", steps)

    def step(state: ProbeState, _: None) -> tuple[ProbeState, Metrics]:
        return probe.step(state)

    return jax.lax.scan(step, probe.init(key), length=steps)


def accuracy(metrics: Metrics) -> Array:
    """Return the fraction [...] of right answers, from sums [...]."""
    return 1.0 - metrics["errors"] / metrics["answers"]
