"""An agent in shards learns as one agent does from all that they experience."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import build, draws, parallel, shards, tree
from memrl_jax.agents import AGENTS, exploration
from memrl_jax.agents.exploration import ExplorationConfig
from memrl_jax.config import Config
from memrl_jax.run.lanes import NOTHING, Lanes
from memrl_jax.run.program import Run, make_program
from memrl_jax.train import TrainState
from memrl_jax.types import Agent, ReplayMemory, Sample, Segment
from tests.small import SMALL

SHARDS, UPDATES = 4, 20
TINY: dict[str, Any] = {
    "environments": 8,
    "encoder": (8,),
    "memory_args": {"features": 8},
    "total_steps": 64_000,
    "data_parallel": SHARDS,
}
PPO = memrl_jax.presets["recurrent-ppo"].replace(
    **TINY,
    environment="CartPole-v1",
    rollout_length=8,
    epochs=1,
    minibatches=1,
    normalize_observations=True,
    normalize_rewards=True,
)
R2D2 = memrl_jax.presets["r2d2"].replace(
    **TINY,
    environment="TMaze",
    rollout_length=4,
    window=4,
    burn_in=4,
    n_step=2,
    capacity=256,
    batch_size=8,
    learning_starts=128,
)
EXPERIENCE = vars(R2D2.agent)["experience"]
LANES = Lanes(0, 1, NOTHING, SHARDS)


class Shards(NamedTuple):
    """What the shards of one seed do together, over the devices; all have a first axis of rows."""

    train: TrainState
    collect: Callable[[TrainState], tuple[TrainState, Segment]]
    learn: Callable[[tuple[TrainState, Segment]], tuple[TrainState, Any]]


def in_shards(config: Config) -> Shards:
    trainer, _ = build.make(config)
    over = partial(parallel.over_seeds, seeds=1, shards=SHARDS)
    train = over(lambda key: trainer.init(key)[0])(LANES.pad(LANES.keys()))
    return Shards(train, over(lambda x: trainer.collect(x)[:2]), over(lambda x: trainer.learn(*x)))


def alone(config: Config, replay: ReplayMemory | None = None) -> Agent:
    """Make the agent that has all environments, and maybe another replay memory."""
    config = config.replace(data_parallel=1)
    parts = build.parts(config, build.make_environment(config))
    if replay is not None:
        parts = parts._replace(replay=lambda _: replay)
    name = next(name for name, (kind, _) in AGENTS.items() if isinstance(config.agent, kind))
    return AGENTS[name][1](config.agent, parts)


def joined(segment: Segment) -> Segment:
    """Return what the shards experienced, [R, T, b, ...], as of one agent: [T, R b, ...]."""

    def beside(x: Any) -> Any:
        x = np.moveaxis(np.asarray(x), 0, 1)
        return jnp.asarray(x.reshape(len(x), -1, *x.shape[3:]))

    memory = jax.tree.map(flat, segment.memory)
    return jax.tree.map(beside, segment._replace(memory=()))._replace(memory=memory)


def flat(x: Any) -> Any:
    """Return [R, b, ...] as [R b, ...]."""
    x = np.asarray(x)
    return jnp.asarray(x.reshape(-1, *x.shape[2:]))


def row(xs: Any, i: int = 0) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[i]), xs)


def assert_alike(rows: Any, whole: Any) -> None:
    """All rows are the same, bit for bit, and what one agent has, up to rounding."""
    for x in jax.tree.leaves(rows):
        np.testing.assert_array_equal(np.asarray(x), np.broadcast_to(np.asarray(x)[:1], x.shape))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), row(rows), whole)


def test_ppo_in_shards_is_ppo_on_the_same_rollouts() -> None:
    """Parameters, moments of Adam and normalisation statistics, after each of 20 updates.

    One gradient step a rollout, for minibatches are drawn from each shard's own environments.
    """
    train, collect, learn = in_shards(PPO)
    agent = alone(PPO)
    state = row(train.agent)
    totals = state.statistics.rewards._replace(total=flat(train.agent.statistics.rewards.total))
    state = state._replace(statistics=state.statistics._replace(rewards=totals))
    learn_alone = jax.jit(agent.learn)
    for _ in range(UPDATES):
        train, segment = collect(train)
        state, means = learn_alone(jax.random.key(0), state, joined(segment))
        train, metrics = learn((train, segment))
        assert_alike(train.agent.learner, state.learner)
        ours, theirs = train.agent.statistics, state.statistics
        assert_alike(ours.observations, theirs.observations)
        assert_alike(ours.rewards.moments, theirs.rewards.moments)
        np.testing.assert_allclose(flat(ours.rewards.total), theirs.rewards.total, rtol=1e-6)
        for name, x in means.items():
            mean = metrics[name].mean()
            np.testing.assert_allclose(mean, x, rtol=1e-3, atol=1e-5, err_msg=name)


def given(like: ReplayMemory) -> ReplayMemory:
    """Make a replay memory whose state is the sample to draw, then the priorities it is told."""

    def update(state: Any, index: Any, priority: Any) -> tuple[Any, dict[str, Any]]:
        return priority, {"refused_priorities": jnp.int32(0)}

    return like._replace(
        init=lambda example: (),
        add=lambda state, segment: state,
        sample=lambda key, state: state,
        update=update,
        warmup=0,
    )


def test_r2d2_in_shards_is_r2d2_on_the_same_windows() -> None:
    """Parameters, targets, moments and priorities, after each of 20 updates.

    The windows are those that the shards draw, each from its own ring; their weights are computed
    here, in NumPy, for all of them at once.
    """
    train, collect, learn = in_shards(R2D2)
    replay = build.make_replay(EXPERIENCE, R2D2)
    agent = alone(R2D2, given(replay))
    learn_alone = jax.jit(agent.learn)
    learner = row(train.agent.learner)

    @jax.jit
    @jax.vmap
    def draw(train: TrainState) -> Sample:
        (key,) = draws.split(draws.split(train.key)[1], 1)
        return replay.sample(key, train.agent.replay)

    largest = 1.0
    for _ in range(UPDATES):
        train, segment = collect(train)
        drawn = draw(jax.device_put(train, jax.devices()[0]))
        chance = chances(train.agent.replay, drawn.index.start)
        weight = (chance / chance.min()) ** -EXPERIENCE.importance_start
        every = joined(drawn.segment)
        sample = Sample(every, (), jnp.asarray(weight.reshape(-1), jnp.float32))
        state = row(train.agent)._replace(learner=learner, replay=sample)
        state, _ = learn_alone(jax.random.key(0), state, joined(segment))
        learner, priority = state.learner, np.asarray(state.replay).reshape(chance.shape)
        train, _ = learn((train, segment))
        assert_alike(train.agent.learner, learner)
        largest = max(largest, priority.max())
        np.testing.assert_allclose(train.agent.replay.largest, [largest] * SHARDS, rtol=1e-4)
        now = leaves(train.agent.replay, drawn.index.start)
        kept = (priority + 1e-6) ** EXPERIENCE.priority_exponent
        np.testing.assert_allclose(now, kept, rtol=1e-3)


def leaves(replay: Any, start: Any) -> np.ndarray:
    """Return the weights of windows [R, N] in the tree of each shard."""
    weights = np.asarray(replay.weights[0], np.float64)
    return np.take_along_axis(weights.reshape(SHARDS, -1), np.asarray(start), axis=1)


def chances(replay: Any, start: Any) -> np.ndarray:
    """Return the probability with which a shard draws each of its windows, [R, N]."""
    weights = np.asarray(replay.weights[0], np.float64).reshape(SHARDS, -1)
    return leaves(replay, start) / weights.sum(axis=1, keepdims=True)


def test_shards_explore_as_one_agent() -> None:
    config = ExplorationConfig(epsilon_spread=7.0, epsilon_steps=100.0)
    whole = exploration.epsilon(config, jnp.int32(30), 8)
    over = parallel.over_seeds(lambda x: exploration.epsilon(config, x, 2), 1, SHARDS)
    np.testing.assert_array_equal(flat(over(LANES.pad(jnp.full(SHARDS, 30)))), whole)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_shards_are_those_of_their_seed(seeds: int, count: int) -> None:
    """However many seeds and shards there are for each device."""
    x = jnp.arange(seeds * count, dtype=jnp.float32) ** 2
    spread = seeds, count
    means = parallel.over_seeds(shards.mean, *spread)(parallel.pad(x, *spread))
    due = np.repeat(np.asarray(x).reshape(seeds, count).mean(axis=1), count)
    np.testing.assert_allclose(means[: seeds * count], due, rtol=1e-6)


def test_outside_of_shards_there_is_one() -> None:
    x = jnp.arange(3.0)
    same = [shards.mean(x), shards.total(x), shards.largest(x), shards.smallest(x), shards.part(x)]
    assert all(y is x for y in same) and shards.count() == 1


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"data_parallel": 0}, "data_parallel: 0 is below 1"),
        ({"data_parallel": 3, "batch_size": 3}, "environments: 2 "),
        ({"data_parallel": 2, "batch_size": 5}, "batch_size: 5 "),
        ({"data_parallel": 2, "restart": 3}, "restart: 3 is not for data_parallel = 2"),
        ({"data_parallel": 2, "agent": AGENTS["tabular"][0]()}, "data_parallel: 2 shards are for "),
    ],
)
def test_what_cannot_be_divided_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        build.make(SMALL.replace(**settings))


def test_a_pure_function_of_one_key_has_no_shards() -> None:
    with pytest.raises(ValueError, match=r"^data_parallel: 2 is for a run "):
        memrl_jax.make_train(SMALL.replace(data_parallel=2))
    with pytest.raises(ValueError, match=r"^data_parallel: 2 is for a run "):
        memrl_jax.sweep(SMALL, {"data_parallel": [1, 2]})


def test_memory_is_that_of_all_shards() -> None:
    one, two = (make_program(SMALL.replace(data_parallel=n), Run(seeds=2)) for n in (1, 2))
    kept = [program.shapes.train.agent.replay.record for program in (one, two)]
    assert [x.shape[0] for x in kept] == [2, 4] and len({tree.nbytes(x) for x in kept}) == 1
