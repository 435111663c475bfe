"""What an iteration of Q-learning cannot do without, written in flax, optax and gymnax alone.

A floor for our training loop: the same networks, batches and optimizer, but nothing is stored,
drawn or counted, and no window has an episode's end in it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import Program, compiled, loop
from memrl_jax.config import Config
from memrl_jax.settings import named

UPDATE, ENVIRONMENT = "bare update", "bare environment"
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class Network(nn.Module):
    """Dense layers, a recurrent cell where one is named, dense layers, action values."""

    encoder: tuple[int, ...]
    cell: str
    features: int
    head: tuple[int, ...]
    actions: int
    dueling: bool

    @nn.compact
    def __call__(self, x: Any, carry: Any = None) -> Any:
        """Return values [T, B, A] of `x` [T, B, D], and the last carry; without a cell, [B, A]."""
        for width in self.encoder:
            x = nn.relu(nn.Dense(width)(x))
        if self.cell in CELLS:
            rnn = nn.RNN(CELLS[self.cell](self.features), time_major=True, return_carry=True)
            carry, x = rnn(x, initial_carry=carry)
        for width in self.head:
            x = nn.relu(nn.Dense(width)(x))
        q = nn.Dense(self.actions)(x)
        if self.dueling:
            q = q - q.mean(axis=-1, keepdims=True) + nn.Dense(1)(x)
        return q, carry


def network(config: Config, actions: int) -> Network:
    given = named(config)
    features = given["memory_args"].get("features", 64)
    widths = given["encoder"], given["memory"], features, given["head"]
    return Network(*widths, actions, given["dueling"])


def update(config: Config, observation: int, actions: int) -> Program:
    """Prepare gradient steps on one batch of observations of so many numbers.

    The batch is of transitions, or with a memory of windows, whose first `burn_in` timesteps
    only bring the memory up to date.
    """
    given = named(config)
    net = network(config, actions)
    size, burn_in = given["batch_size"], given["burn_in"]
    times = () if given["memory"] == "none" else (burn_in + given["window"] + 1,)
    keys = jax.random.split(jax.random.key(0), 4)
    xs = jax.random.normal(keys[0], (*times, size, observation))
    after = jax.random.normal(keys[1], (size, observation))
    action = jax.random.randint(keys[2], (*times, size), 0, actions)
    params = net.init(keys[3], xs)
    clip = given["max_gradient_norm"]
    adam = optax.adam(given["learning_rate"])
    optimizer = adam if clip is None else optax.chain(optax.clip_by_global_norm(clip), adam)

    def values(params: Any, target_params: Any, xs: Any) -> tuple[Any, Any, Any]:
        """Return q of what was seen, and of what came after it by both networks."""
        if not times:
            q, _ = net.apply(params, xs)
            later = net.apply(params, after)[0] if given["double"] else q
            return q, later, net.apply(target_params, after)[0]
        frozen, carry, target_carry = jax.lax.stop_gradient(params), None, None
        if burn_in:
            _, carry = net.apply(frozen, xs[:burn_in])
            _, target_carry = net.apply(target_params, xs[:burn_in])
        q, _ = net.apply(params, xs[burn_in:], carry)
        target_q, _ = net.apply(target_params, xs[burn_in:], target_carry)
        return q[:-1], q[1:], target_q[1:]

    def step(carry: Any) -> Any:
        params, target_params, moments, count, xs, action = carry

        def loss(params: Any) -> Any:
            q, later, target_q = values(params, target_params, xs)
            chosen = jnp.argmax(later if given["double"] else target_q, axis=-1)
            bootstrap = jnp.take_along_axis(target_q, chosen[..., None], axis=-1)[..., 0]
            target = jax.lax.stop_gradient(1.0 + given["discount"] * bootstrap)
            taken = action[burn_in:-1] if times else action
            taken_q = jnp.take_along_axis(q, taken[..., None], axis=-1)[..., 0]
            return jnp.mean((target - taken_q) ** 2)

        gradient = jax.grad(loss)(params)
        change, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, change)
        rate = jnp.where(count % given["target_period"] == 0, given["target_rate"], 0.0)
        target_params = optax.incremental_update(params, target_params, rate)
        return params, target_params, moments, count + 1, xs, action

    copy = jax.tree.map(jnp.copy, params)
    carry = (params, copy, optimizer.init(params), jnp.int32(1), xs, action)
    return compiled((UPDATE, given["capacity"], 1), loop(step), carry)


def environment(config: Config) -> Program:
    """Prepare the rollouts of a gymnax environment by a policy that does not learn."""
    import gymnax

    given = named(config)
    env, options = gymnax.make(config.environment)
    actions = env.action_space(options).n
    net, copies = network(config, actions), config.environments
    reset = jax.vmap(env.reset, in_axes=(0, None))
    advance = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    key, reset_key, net_key = jax.random.split(jax.random.key(0), 3)
    seen, state = reset(jax.random.split(reset_key, copies), options)
    params = net.init(net_key, seen)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        key, params, seen, state, total = carry
        key, explore_key, action_key, env_key = jax.random.split(key, 4)
        best = jnp.argmax(net.apply(params, seen)[0], axis=-1)
        random = jax.random.randint(action_key, best.shape, 0, actions)
        explores = jax.random.uniform(explore_key, best.shape) < given["epsilon_end"]
        action = jnp.where(explores, random, best)
        keys = jax.random.split(env_key, copies)
        seen, state, reward, *_ = advance(keys, state, action, options)
        return (key, params, seen, state, total + reward), None

    def rollout(carry: Any) -> Any:
        return jax.lax.scan(step, carry, length=config.rollout_length)[0]

    carry = (key, params, seen, state, jnp.zeros(copies))
    return compiled((ENVIRONMENT, given["capacity"], 1), loop(rollout), carry)
