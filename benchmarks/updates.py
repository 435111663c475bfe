"""What PPO's update costs beside its gradient steps alone, on one minibatch cut out beforehand.

    python -m benchmarks.updates [--quick]

CartPole-v1, 16 environments x 128 steps, 4 epochs of 4 minibatches, 128 units. Both are timed in
turns; the ratio is the median over the turns. Advantages, the permutation of environments, cutting
out minibatches and adding up metrics are what there is besides.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks import command
from benchmarks.timing import Program, compiled, interleave, loop, ratio
from memrl_jax import cli, distributions
from memrl_jax.agents import PPOConfig
from memrl_jax.agents.minibatches import share
from memrl_jax.agents.optimizer import make_optimizer
from memrl_jax.agents.ppo import Learner, judge, ppo_loss
from memrl_jax.build import make, make_agent, make_body, make_environment
from memrl_jax.config import Config
from memrl_jax.networks import actor_critic

TARGET = 1.15


class Pieces(NamedTuple):
    """An agent with a rollout to learn from, and the parts of its update."""

    agent: Any
    state: Any
    segment: Any
    config: PPOConfig
    network: Any
    distribution: Any


def pieces(memory: str) -> Pieces:
    """Collect one rollout."""
    options = {} if memory == "none" else {"memory": memory, "memory_args": {"features": 128}}
    config = Config(agent=PPOConfig()).replace(
        environments=16, rollout_length=128, total_steps=16 * 128, encoder=(128,), **options
    )
    env = make_environment(config)
    trainer, _ = make(config)
    train, _ = jax.jit(trainer.init)(jax.random.key(0))
    train, segment, _ = jax.jit(trainer.collect)(train)
    settings: Any = config.agent
    distribution = distributions.from_space(env.spec.actions)
    body, layers = make_body(settings.body, env.spec), settings.body.layers
    network = actor_critic(body, distribution.size, settings.head, layers, settings.separate)
    agent = make_agent(config, env)
    return Pieces(agent, train.agent, segment, settings, network, distribution)


def update(made: Pieces) -> Program:
    """Learn from the rollout, again and again."""

    def step(carry: Any) -> Any:
        key, state, segment = carry
        key, learn_key = jax.random.split(key)
        state, _ = made.agent.learn(learn_key, state, segment)
        return key, state, segment

    carry = jax.random.key(1), made.state, made.segment
    return compiled(("update", 0, 1), loop(step), jax.tree.map(jnp.copy, carry))


def gradient_steps(made: Pieces) -> Program:
    """Take as many gradient steps as an update has, all from one minibatch."""
    optimizer = make_optimizer(made.config.optimizer)
    gradient = jax.grad(ppo_loss, has_aux=True)
    steps = made.config.epochs * made.config.minibatches

    def step(batch: Any, learner: Learner, _: None) -> tuple[Learner, None]:
        given = made.network, made.distribution, made.config, batch
        slope, _means = gradient(learner.params, *given)
        change, state = optimizer.update(slope, learner.optimizer, learner.params)
        return Learner(optax.apply_updates(learner.params, change), state), None

    def several(carry: Any) -> Any:
        learner, batch = carry
        return jax.lax.scan(partial(step, batch), learner, length=steps)[0], batch

    learner, reward = made.state.learner, made.segment.timestep.reward[1:]
    batch = judge(learner.params, made.network, made.config, made.segment, reward)
    few = share(batch, jnp.arange(16 // made.config.minibatches))
    carry = jax.tree.map(jnp.copy, (learner, few))
    return compiled(("gradient steps alone", 0, 1), loop(several), carry)


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    cli.use_every_core()
    for memory in ("gru",) if quick else ("gru", "none", "lru"):
        made = pieces(memory)
        whole, alone = interleave([update(made), gradient_steps(made)], 0.5, 5 if quick else 15)
        found = ratio(whole.microseconds, alone.microseconds)
        verdict = "reached" if found <= TARGET else "NOT REACHED"
        took = whole.microseconds.min() / 1e3
        print(f"{memory}: update {took:.1f} ms, {found:.3f} of its gradient steps: {verdict}")


if __name__ == "__main__":
    main()
