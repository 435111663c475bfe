"""PPO's parts, each alone, against numbers worked out in another way."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import distributions, tree
from memrl_jax.agents.ppo import Batch, PPOConfig, judge, ppo, ppo_loss
from memrl_jax.memory import MEMORIES
from memrl_jax.networks import actor_critic, encoder, recurrent
from memrl_jax.normalize import normalizer
from memrl_jax.settings import BodyConfig
from memrl_jax.spaces import Continuous, Discrete, zeros
from memrl_jax.types import Agent, Network, Segment, Spec, TimeStep

T, B = 6, 4
SEEN = Continuous((3,), jnp.float32, -np.inf, np.inf)
BOX = Continuous((2,), jnp.float32, np.float32([-2, 0]), np.float32([2, 1]))
SPACES: dict[str, Any] = {
    "discrete": Discrete(3),
    "multi-discrete": (Discrete(3), {"a": Discrete(2)}),
    "continuous": BOX,
    "mixed": (Discrete(3), BOX),
}
CONFIG = PPOConfig(head=(8,)).replace(encoder=(8,), orthogonal=True, learning_rate=0.01)
# Where the default sizes would take long to compile.
SIZES: dict[str, dict[str, Any]] = {
    "none": {},
    "memory_trace": {},
    "frame_stack": {"features": 4, "frames": 3},
    "gtrxl": {"features": 4, "heads": 2, "window": 3},
    "ntm": {"features": 4, "slots": 4, "width": 3, "hidden": 4},
    "frmqn": {"features": 4, "frames": 3},
}

pytestmark = pytest.mark.usefixtures("strict")


@pytest.fixture(scope="module")
def strict() -> Any:
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


def body(config: PPOConfig, spec: Spec) -> Any:
    memory = MEMORIES[config.body.memory](**config.body.memory_args)
    return partial(recurrent, encoder(config.body, spec), memory)


def made(config: PPOConfig, spec: Spec) -> Agent:
    return ppo(config, spec, body(config, spec))


def network_of(config: PPOConfig, spec: Spec) -> Network:
    size = distributions.from_space(spec.actions).size
    layers = config.body.layers
    return actor_critic(body(config, spec), size, config.head, layers, config.separate)


def timesteps(spec: Spec, seed: int = 0) -> TimeStep:
    """Make up T + 1 timesteps [T + 1, B] with episodes that end in both ways inside them."""
    rng = np.random.default_rng(seed)
    shape = (T + 1, B)
    last = rng.uniform(size=shape) < 0.3
    last[2, 0] = last[3, 1] = True
    start = np.roll(last, 1, axis=0)
    start[0] = rng.uniform(size=B) < 0.5
    last &= ~start
    start[1:] = last[:-1]
    terminated = last & (rng.uniform(size=shape) < 0.5)
    terminated[2, 0], terminated[3, 1] = True, False
    fields: dict[str, Any] = dict(
        observation=rng.normal(5, 3, size=(*shape, 3)).astype(np.float32),
        action=jax.tree.map(lambda x: np.zeros((*shape, *x.shape), x.dtype), zeros(spec.actions)),
        reward=np.where(start, 0, rng.normal(size=shape)).astype(np.float32),
        discount=np.where(terminated, 0, 1).astype(np.float32),
        start=start,
        last=last,
        legal=(),
    )
    if spec.legal:
        fields["legal"] = jax.tree.map(
            lambda x: legal_actions(rng, shape, x),
            spec.actions,
            is_leaf=lambda x: isinstance(x, Discrete | Continuous),
        )
    return jax.tree.map(jnp.asarray, TimeStep(**fields))


def legal_actions(rng: Any, shape: tuple[int, ...], space: Any) -> Any:
    if not isinstance(space, Discrete):
        return ()
    legal = rng.uniform(size=(*shape, space.n)) < 0.4
    np.put_along_axis(legal, rng.integers(space.n, size=(*shape, 1)), True, axis=-1)
    return legal


def play(agent: Agent, key: Any, state: Any, timestep: TimeStep, explore: bool = True) -> Segment:
    """Let an agent act along made-up timesteps [T + 1, B], whatever it does."""

    def step(memory: Any, x: Any) -> Any:
        key, timestep = x
        memory, action, extras = agent.act(key, state, memory, timestep, explore)
        return memory, (action, extras)

    memory = agent.initial_memory(B)
    keys = jax.random.split(key, T)
    _, (action, extras) = jax.lax.scan(step, memory, (keys, tree.at(timestep, slice(-1))))
    return Segment(memory, timestep, action, extras)


def begun(config: PPOConfig, spec: Spec) -> tuple[Agent, Any, Segment]:
    """Return an agent, its state, and a rollout that it acted in; the second one of its life."""
    agent, timestep = made(config, spec), timesteps(spec)

    @jax.jit
    def rollouts(key: Any) -> Any:
        key, init_key, *keys = jax.random.split(key, 5)
        state = agent.init(init_key, tree.at(timestep, 0))
        if config.normalize_observations or config.normalize_rewards:
            first = play(agent, keys[0], state, timesteps(spec, seed=1))
            state, _ = agent.learn(keys[1], state, first)
        return state, play(agent, keys[2], state, timestep)

    return agent, *rollouts(jax.random.key(0))


def log_ratio(config: PPOConfig, spec: Spec, state: Any, segment: Segment) -> Any:
    """Return by how much log-probabilities when learning differ from those when acting, [T, B]."""
    network, distribution = network_of(config, spec), distributions.from_space(spec.actions)
    scales = normalizer(spec, config.normalize_observations, False, config.discount)
    before = scales.see(state.statistics, tree.at(segment.timestep, slice(-1)))
    _, (parameters, _) = network.unroll(state.learner.params, segment.memory, before)
    log_prob = distribution.log_prob(parameters, segment.extras["action"], before.legal)
    return log_prob - segment.extras["log_prob"]


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_ratio_is_one_before_the_first_update(memory: str) -> None:
    """For every memory, also where episodes start inside the rollout."""
    config = CONFIG.replace(memory=memory, memory_args=SIZES.get(memory, {"features": 4}))
    spec = Spec(SEEN, Discrete(3))
    _, state, segment = begun(config, spec)
    assert segment.timestep.start[1:].any()
    gap = jax.jit(partial(log_ratio, config, spec))(state, segment)
    np.testing.assert_allclose(gap, 0, atol=2e-6)
