"""The training loop, DQN, and what a whole run promises."""

import re
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import memrl_jax
from memrl_jax import config as configs
from memrl_jax import parallel, settings
from memrl_jax.agents import DQNConfig, dqn
from memrl_jax.build import make
from memrl_jax.networks import recurrent
from memrl_jax.replay import uniform
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.train import make_trainer
from memrl_jax.types import Environment, Spec, TimeStep
from tests.small import SMALL

STARTS = settings.named(SMALL)["learning_starts"]


def with_learning_rate(config, rate):
    return config.replace(learning_rate=rate)


@pytest.fixture(scope="module")
def train():
    return jax.jit(memrl_jax.make_train(SMALL))


@pytest.fixture(scope="module")
def keys():
    return parallel.seed_keys(0, 3)


def compilations(f: Any) -> int:
    return f._cache_size()


def numbers(tree):
    """Turn typed keys into what they are made of, which chex can compare."""

    def plain(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(plain, tree)


def test_three_lines():
    config = memrl_jax.presets["drqn"].replace(environment="CartPole-v1")
    config = config.replace(total_steps=2_400, capacity=2_000)
    train = memrl_jax.make_train(config)
    state, metrics = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 2))
    steps = (config.total_steps - settings.named(config)["learning_starts"]) // 40
    assert metrics["loss_sum"].shape == (2, 1 + steps)
    assert np.all(np.isfinite(metrics["loss_sum"]))
    # The action after the end of an episode is no step of the environment.
    assert all(0.9 * config.total_steps < n < config.total_steps for n in state.agent.env_steps)


def test_same_key_same_bits_and_no_second_compile(train, keys):
    first, second = train(keys[0]), train(keys[0])
    chex.assert_trees_all_equal(numbers(first), numbers(second))
    other = train(keys[1])
    assert compilations(train) == 1
    assert not np.array_equal(first[1]["loss_sum"], other[1]["loss_sum"])


def test_vmapped_mapped_and_sharded_seeds_give_what_single_ones_give(train, keys):
    """The same numbers to float rounding: batched matrix products may add in another order."""
    singles = [train(key) for key in keys]
    single = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    pure = memrl_jax.make_train(SMALL)
    vmapped = jax.jit(jax.vmap(pure))(keys)
    mapped = jax.jit(partial(jax.lax.map, pure))(keys)
    assert parallel.mesh(3).size == 2
    sharded = parallel.over_seeds(pure, 3)(parallel.pad(keys, 3))
    sharded = jax.tree.map(lambda x: x[:3], sharded)
    chex.assert_trees_all_close(single[1], mapped[1], rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(single[1], sharded[1], rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(single[1], vmapped[1], rtol=1e-4, atol=1e-4)


def test_learning_rate_times_seed_in_one_compile(train, keys):
    @jax.jit
    def grid(config, keys):
        over_seeds = jax.vmap(lambda config, key: memrl_jax.make_train(config)(key), (None, 0))
        axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, config)
        return jax.vmap(over_seeds, (axes, None))(config, keys)[1]

    rates = jnp.array([1e-3, 1e-2])
    metrics = grid(with_learning_rate(SMALL, rates), keys[:2])
    assert metrics["loss_sum"].shape[:2] == (2, 2)
    assert settings.named(SMALL)["learning_rate"] == 1e-3
    np.testing.assert_allclose(
        metrics["loss_sum"][0, 1], train(keys[1])[1]["loss_sum"], rtol=1e-3, atol=1e-6
    )
    assert not np.array_equal(metrics["loss_sum"][0], metrics["loss_sum"][1])
    grid(with_learning_rate(SMALL, rates / 2), keys[:2])
    assert compilations(grid) == 1


def test_other_floats_compile_nothing(keys):
    @jax.jit
    def train_with(config, key):
        return memrl_jax.make_train(config)(key)[1]

    train_with(SMALL, keys[0])
    other = SMALL.replace(learning_rate=2e-3, discount=0.9, epsilon_end=0.2, target_rate=0.5)
    train_with(other, keys[0])
    assert compilations(train_with) == 1


def test_steps_and_warmup_are_counted(train, keys):
    state, metrics = train(keys[0])
    starts = SMALL.total_steps - int(metrics["steps"].sum())
    episodes = int(metrics["episodes"].sum())
    assert episodes > 0 and abs(starts - episodes) <= SMALL.environments  # one slot per episode
    updates = (SMALL.total_steps - STARTS) / 8
    assert metrics["updates"].sum() == updates == state.agent.learner.updates
    warmup = {name: x[0] for name, x in metrics.items()}
    assert warmup["updates"] == warmup["loss_sum"] == warmup["q_sum"] == 0
    assert 0 < warmup["steps"] <= STARTS and warmup["episodes"] > 0


def constant_reward(limit: int, terminates: bool) -> Environment:
    """Reward 1 at every step, one observation, and an end after `limit` steps."""

    def reset(key):
        zero, one = jnp.float32(0), jnp.float32(1)
        yes = jnp.bool_(True)
        return jnp.int32(0), TimeStep(jnp.ones(1), jnp.int32(0), zero, one, yes, ~yes)

    def step(key, time, action):
        last = time == limit
        time = jnp.where(last, 0, time + 1)
        over = time == limit
        return time, TimeStep(
            jnp.ones(1),
            jnp.where(last, 0, action),
            jnp.where(last, 0.0, 1.0),
            jnp.where(over & terminates, 0.0, 1.0),
            last,
            over,
        )

    spec = Spec(Continuous((1,), jnp.float32, 0, 1), Discrete(1))
    return Environment(reset, step, spec, limit)


@pytest.mark.parametrize("n_step, window", [(1, 1), (3, 6)])
@pytest.mark.parametrize("terminates", [False, True])
def test_termination_is_not_truncation(terminates, n_step, window):
    """With gamma = 0.9 and a limit of 5 steps that the observation does not show.

    Bootstrapping at the limit, Q = 1 / (1 - 0.9) = 10. Dying there, one state in five has no
    future: Q = 1 + 0.9 * 4/5 Q = 3.571 for one step, and the average of what is left of the
    episode, bootstrapped after n steps, for more.
    """
    env = constant_reward(5, terminates)
    config = DQNConfig().replace(
        n_step=n_step,
        discount=0.9,
        learning_rate=0.05,
        loss="squared",
        target_period=1,
        target_rate=0.1,
    )
    body = partial(recurrent, _Flat(), memrl_jax.memory.none())
    agent = dqn(config.replace(head=()), env.spec, body, uniform(200, 6, window, 64))
    trainer = make_trainer(env, agent._replace(warmup=50), 1, 6)
    state, _ = trainer.init(jax.random.key(0))
    state, metrics = jax.lax.scan(lambda s, _: trainer.step(s), state, length=1500)
    q = float(np.mean(metrics["q_sum"][-300:]))
    expected = 10.0 if not terminates else _dying(5, n_step, window, 0.9)
    assert q == pytest.approx(expected, rel=0.03)


def _dying(limit: int, n: int, window: int, gamma: float) -> float:
    """Solve Q = mean of the n-step targets over all windows of a stream of such episodes."""
    period = limit + 1  # one slot more for the step that starts anew
    constant, slope = [], []
    for start in range(period):
        for i in range(window):
            time = (start + i) % period
            if time == limit:
                continue  # the action at a last timestep is not learned from
            k = min(n, limit - time, window - i)
            constant.append(sum(gamma**j for j in range(k)))
            slope.append(0.0 if time + k == limit else gamma**k)
    return float(np.mean(constant) / (1 - np.mean(slope)))


class _Flat(nn.Module):
    """An encoder without parameters."""

    def __call__(self, timestep):
        return timestep.observation


def copies_in_loops(text: str, capacity: int) -> list[str]:
    """Return the copies of arrays with `capacity` rows outside the entry computation."""
    computations = re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \([^\n]*\) -> [^\n]*\{)", text)
    inside = "\n".join(x for x in computations if not x.startswith("ENTRY"))
    return re.findall(rf"= \w+\[(?:\d+,)*{capacity}(?:,\d+)*\]\S* copy\(.*", inside)


@pytest.mark.parametrize("replay, length", [("uniform", 1), ("uniform", 4), ("prioritized", 4)])
def test_no_copy_of_the_replay_inside_the_loop(replay, length):
    capacity = 7919 * 4
    config = memrl_jax.presets["dqn"].replace(
        environment="TMaze", environments=1, rollout_length=length, total_steps=4_000
    )
    config = config.replace(replay=replay, capacity=capacity, learning_starts=400, updates=2)
    compiled = jax.jit(memrl_jax.make_train(config)).lower(jax.random.key(0)).compile()
    text = str(compiled.as_text())
    assert f"[{capacity}," in text
    assert "dynamic-update-slice" in text
    assert copies_in_loops(text, capacity) == []
    if replay == "prioritized":  # nor of the leaves of the tree, in blocks of 8
        blocks = -(-capacity // 8)
        assert f"[{blocks},8]" in text
        assert copies_in_loops(text, blocks) == []
        assert copies_in_loops(text, blocks * 8) == []


def test_the_copy_test_can_fail():
    def loop(xs):
        def body(i, carry):
            xs, total = carry
            total = total + jax.lax.optimization_barrier(xs)[i]
            return xs.at[i].set(total), total + jnp.sum(jax.lax.optimization_barrier(xs)[i + 1])

        return jax.lax.fori_loop(0, 10, body, (xs, jnp.float32(0)))

    text = str(jax.jit(loop).lower(jnp.zeros(7919)).compile().as_text())
    assert copies_in_loops(text, 7919)


def test_configs_survive_json():
    for config in (*memrl_jax.presets.values(), SMALL):
        assert configs.from_json(configs.to_json(config)) == config


def test_frames_are_seen_together_and_stored_apart():
    """The network sees stacks; the ring holds single frames, and learning goes on from it."""
    config = SMALL.replace(memory="none", memory_args={}, frames=3, window=1, replay="prioritized")
    state, metrics = jax.jit(memrl_jax.make_train(config))(jax.random.key(0))
    assert state.actor.timestep.observation.shape == (2, 6)
    assert state.agent.replay.ring.fields.timestep.observation.shape == (0, 2)
    kernel = state.agent.learner.params["encoder"]["params"]["MLP_0"]["Dense_0"]["kernel"]
    assert kernel.shape[0] == 6 + 4 + 1  # three frames of 2, previous action and reward
    assert np.all(np.isfinite(metrics["loss_sum"]))


def test_the_learning_rate_falls_to_zero():
    config = SMALL.replace(decay_updates=20.0, total_steps=80 + 8 * 30)
    train = memrl_jax.make_train(config)
    state, _ = jax.jit(train)(jax.random.key(0))
    trainer, _ = make(config)
    later, _ = jax.jit(trainer.step)(state)
    assert state.agent.learner.updates == 30
    chex.assert_trees_all_equal(later.agent.learner.params, state.agent.learner.params)
