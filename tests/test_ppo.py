"""PPO's parts, each alone, against numbers worked out in another way."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import distributions, tree
from memrl_jax.agents.ppo import Batch, PPOConfig, ppo, ppo_loss, with_advantages
from memrl_jax.memory import MEMORIES
from memrl_jax.networks import actor_critic, encoder, recurrent
from memrl_jax.normalize import normalizer
from memrl_jax.spaces import Continuous, Discrete, zeros
from memrl_jax.types import Agent, Network, Segment, Spec, TimeStep

T, B = 6, 4
SEEN = Continuous((3,), jnp.float32, -np.inf, np.inf)
BOX = Continuous((2,), jnp.float32, np.array([-2.0, 0]), np.array([2.0, 1]))
SPACES: dict[str, Any] = {
    "multi-discrete": (Discrete(3), {"a": Discrete(2)}),
    "mixed": (Discrete(3), BOX),
}
CONFIG = PPOConfig(head=(8,)).replace(encoder=(8,), orthogonal=True, learning_rate=0.01)
# Whatever is a number may be traced, so that tests share what is compiled.
SHORT = CONFIG.replace(epochs=2, minibatches=2, max_kl=1e9)
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
    """Return an agent, its state, and a rollout that it acted in.

    If it normalises, it has learned from another rollout before.
    """
    agent, timestep = made(config, spec), timesteps(spec)

    @jax.jit
    def rollouts(key: Any) -> Any:
        init_key, first_key, learn_key, key = jax.random.split(key, 4)
        state = agent.init(init_key, tree.at(timestep, 0))
        if config.normalize_observations:
            first = play(agent, first_key, state, timesteps(spec, seed=1))
            state, _ = agent.learn(learn_key, state, first)
        return state, play(agent, key, state, timestep)

    return agent, *rollouts(jax.random.key(0))


def log_ratio(config: PPOConfig, spec: Spec, state: Any, segment: Segment) -> Any:
    """Return by how much log-probabilities when learning differ from those when acting, [T, B]."""
    network, distribution = network_of(config, spec), distributions.from_space(spec.actions)
    scales = normalizer(spec, config.normalize_observations, False, config.discount)
    before = scales.normalize(state.statistics, tree.at(segment.timestep, slice(-1)))
    _, (parameters, _) = network.unroll(state.learner.params, segment.memory, before)
    log_prob = distribution.log_prob(parameters, segment.extras["action"], before.legal)
    return log_prob - segment.extras["log_prob"]


RATIOS: dict[str, dict[str, Any]] = {
    **{f"with {name}": {"memory": name} for name in ("lru", "gtrxl", "ntm", "frmqn")},
    "separate": {"memory": "gru", "separate": True},
    "normalised": {"normalize_observations": True, "normalize_rewards": True, "epochs": 1},
}


@pytest.mark.parametrize("options", RATIOS.values(), ids=RATIOS)
def test_the_ratio_is_one_before_the_first_update(options: dict[str, Any]) -> None:
    """Also where episodes start inside the rollout, and with statistics that have moved."""
    memory = options.get("memory", "none")
    config = CONFIG.replace(memory_args=SIZES.get(memory, {"features": 4}), **options)
    spec = Spec(SEEN, Discrete(3))
    _, state, segment = begun(config, spec)
    assert segment.timestep.start[1:].any()
    gap = jax.jit(partial(log_ratio, config, spec))(state, segment)
    np.testing.assert_allclose(gap, 0, atol=2e-6)


@pytest.mark.parametrize("space", SPACES)
def test_several_actions_at_once(space: str) -> None:
    """Ratios are one; nothing illegal is done; the environment gets what is within its bounds."""
    spec = Spec(SEEN, SPACES[space], legal=True)
    agent, state, segment = begun(SHORT, spec)
    np.testing.assert_allclose(log_ratio(SHORT, spec, state, segment), 0, atol=2e-6)
    best = play(agent, jax.random.key(1), state, segment.timestep, explore=False)
    for played in (segment, best):
        assert_allowed(spec, played)
    drawn = [x for x in jax.tree.leaves(segment.extras["action"]) if x.dtype == np.float32]
    for box in map(np.asarray, drawn):
        assert np.any((box < BOX.low) | (box > BOX.high))
    state, metrics = agent.learn(jax.random.key(2), state, segment)
    chex.assert_tree_all_finite((state, metrics))
    assert metrics["updates"] == 2 * 2
    assert_allowed(spec, play(agent, jax.random.key(3), state, segment.timestep))


def assert_allowed(spec: Spec, segment: Segment) -> None:
    legal = tree.at(segment.timestep.legal, slice(-1))
    chex.assert_trees_all_equal(segment.action, distributions.clip(spec.actions, segment.action))
    pairs = zip(jax.tree.leaves(segment.action), jax.tree.leaves(legal), strict=False)
    for action, may in pairs:
        assert np.all(np.take_along_axis(np.asarray(may), np.asarray(action)[..., None], -1))


def given(key: str, params: Any, memory: Any, timestep: TimeStep) -> Any:
    return memory, (params["logits"], params["value"])


# Says what its parameters say, whatever it is shown.
GIVEN = Network(lambda *x: None, lambda batch: (), *[partial(given, x) for x in ("step", "unroll")])


def slow_advantages(config: PPOConfig, segment: Segment, reward: Any, value: Any) -> Any:
    """Sum up errors of values from every action on, as far as its episode goes."""
    timestep = jax.tree.map(np.asarray, segment.timestep)
    out = np.zeros((T, B))
    for b in range(B):
        for first in range(T):
            weight = 0.0 if timestep.last[first, b] else 1.0
            for t in range(first, T):
                after = config.discount * timestep.discount[t + 1, b] * value[t + 1, b]
                out[first, b] += weight * (reward[t, b] + after - value[t, b])
                weight *= config.discount * config.gae_lambda
                if timestep.last[t + 1, b]:
                    break
    return out


def test_advantages_tell_time_limits_from_terminations() -> None:
    spec = Spec(SEEN, Discrete(3))
    timestep = timesteps(spec)
    assert timestep.last[1:-1].any() and (timestep.last & (timestep.discount > 0))[1:-1].any()
    value = np.random.default_rng(1).normal(size=(T + 1, B)).astype(np.float32)
    reward = timestep.reward[1:] * 2
    extras = {"action": jnp.zeros((T, B), jnp.int32), "log_prob": jnp.zeros((T, B))}
    segment = Segment((), timestep, extras["action"], extras)
    params = {"logits": (), "value": jnp.asarray(value)}
    batch = with_advantages(params, GIVEN, CONFIG, segment, reward)
    slow = slow_advantages(CONFIG, segment, reward, value)
    np.testing.assert_allclose(batch.advantage, slow, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.value, value[:-1])


def made_up_batch() -> tuple[dict[str, Any], Batch]:
    """Return what a network says, and a batch in which what does not count is NaN or huge."""
    rng = np.random.default_rng(3)
    timestep = tree.at(timesteps(Spec(SEEN, Discrete(3))), slice(-1))
    logits, value, old, log_prob, advantage = (
        jnp.asarray(rng.normal(size=(T, B, *n)), jnp.float32) for n in ((3,), (), (), (), ())
    )
    log_prob = jnp.where(timestep.last, jnp.nan, log_prob - 1)
    advantage, old = (jnp.where(timestep.last, 1e6, x) for x in (advantage, old))
    action = jnp.asarray(rng.integers(3, size=(T, B)), jnp.int32)
    params = {"logits": logits, "value": value}
    return params, Batch((), timestep, action, log_prob, old, advantage)


def slow_loss(config: PPOConfig, params: Any, batch: Batch) -> dict[str, float]:
    """Take the steps that count one by one, in double precision."""
    rows = []
    counts = np.argwhere(~np.asarray(batch.timestep.last))
    advantages = np.array([batch.advantage[t, b] for t, b in counts], float)
    normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for (t, b), raw, a in zip(counts, advantages, normal, strict=True):
        weights = np.exp(np.asarray(params["logits"][t, b], float))
        p = weights / weights.sum()
        log_ratio = np.log(p[batch.action[t, b]]) - float(batch.log_prob[t, b])
        ratio, old, value = (
            np.exp(log_ratio),
            float(batch.value[t, b]),
            float(params["value"][t, b]),
        )
        clipped = min(max(ratio, 1 - config.clip), 1 + config.clip)
        error = (value - (raw + old)) ** 2
        if config.value_clip is not None:
            near = min(max(value, old - config.value_clip), old + config.value_clip)
            error = max(error, (near - (raw + old)) ** 2)
        entropy = -(p * np.log(p)).sum()
        rows.append([-min(a * ratio, a * clipped), error / 2, entropy, ratio - 1 - log_ratio])
    means = np.mean(rows, axis=0)
    loss = means[0] + config.value_weight * means[1] - config.entropy_bonus * means[2]
    return dict(zip(["policy_loss", "value_loss", "entropy", "kl"], means, strict=True), loss=loss)


@pytest.mark.parametrize("value_clip", [None, 0.3])
def test_the_loss_is_the_definition(value_clip: float | None) -> None:
    """What is done at a `last` timestep counts nowhere, and gradients do not pass through it."""
    config = CONFIG.replace(value_clip=value_clip, entropy_bonus=0.1)
    params, batch = made_up_batch()
    distribution = distributions.categorical(3)
    grad = jax.jit(
        jax.grad(
            partial(ppo_loss, network=GIVEN, distribution=distribution, config=config, batch=batch),
            has_aux=True,
        )
    )
    slope, means = grad(params)
    slow = slow_loss(config, params, batch)
    np.testing.assert_allclose([means[x] for x in slow], [*slow.values()], rtol=1e-5)
    assert 0 < means["clipped"] < 1
    for x in slope.values():
        assert np.all(np.isfinite(x))
        assert np.all(np.asarray(x)[np.asarray(batch.timestep.last)] == 0)


DISCRETE = Spec(SEEN, Discrete(3))


@jax.jit
def learn(config: PPOConfig, key: Any, state: Any, segment: Segment) -> Any:
    return made(config, DISCRETE).learn(key, state, segment)


@pytest.fixture(scope="module")
def rollout() -> tuple[Agent, Any, Segment]:
    return begun(SHORT, DISCRETE)


def learned(rollout: tuple[Agent, Any, Segment], **options: Any) -> tuple[Any, dict[str, Any]]:
    return learn(SHORT.replace(**options), jax.random.key(4), *rollout[1:])


def test_minibatches_are_all_environments_once(rollout: Any) -> None:
    """So, of steps that lead nowhere, the mean is that of all environments at once."""
    agent, state, segment = rollout
    never = jnp.zeros_like(segment.timestep.last)
    segment = segment._replace(timestep=segment.timestep._replace(last=never, start=never))
    _, metrics = learned((agent, state, segment), learning_rate=0.0)
    assert metrics["updates"] == 4
    network, params = network_of(SHORT, DISCRETE), state.learner.params
    batch = with_advantages(params, network, SHORT, segment, segment.timestep.reward[1:])
    _, means = ppo_loss(params, network, distributions.categorical(3), SHORT, batch)
    for name in ("value_loss", "entropy", "kl"):
        np.testing.assert_allclose(metrics[f"{name}_sum"] / 4, means[name], rtol=1e-5, atol=1e-9)


def test_learning_stops_where_policies_part(rollout: Any) -> None:
    free, all_of_it = learned(rollout, learning_rate=0.1)
    stopped, some = learned(rollout, learning_rate=0.1, max_kl=1e-4)
    assert all_of_it["updates"] == 4 and all_of_it["kl_sum"] > 1e-3
    # The first step is from the old policy itself; what the next one finds has gone too far.
    assert some["updates"] == 1 and some["kl_sum"] <= 1e-4
    assert distance(rollout[1].learner.params, stopped.learner.params) > 1e-3
    assert distance(free.learner.params, stopped.learner.params) > 1e-3


def distance(x: Any, y: Any) -> float:
    apart = jax.tree.map(lambda x, y: float(np.abs(np.asarray(x) - np.asarray(y)).max()), x, y)
    return max(jax.tree.leaves(apart))


def test_values_are_computed_anew_where_asked(rollout: Any) -> None:
    """With parameters that do not move that changes nothing."""

    def apart(rate: float) -> tuple[float, float]:
        (old, sums), (new, sums_anew) = (
            learned(rollout, learning_rate=rate, refresh=refresh) for refresh in (False, True)
        )
        gap = distance(sums["value_loss_sum"], sums_anew["value_loss_sum"])
        return gap, distance(old.learner.params, new.learner.params)

    assert max(apart(0.0)) < 1e-5
    assert min(apart(0.01)) > 1e-4


def test_statistics_move_when_learning_is_done() -> None:
    config = SHORT.replace(normalize_observations=True, normalize_rewards=True)
    agent, state, segment = begun(config, DISCRETE)
    after, _ = learn(config, jax.random.key(4), state, segment)
    counted = [x.statistics.observations.counted for x in (state, after)]
    assert counted == [T * B, 2 * T * B]
    earned = [x.statistics.rewards.moments.counted for x in (state, after)]
    assert earned[1] - earned[0] == np.sum(~np.asarray(segment.timestep.start[1:]))
    moved = state._replace(statistics=after.statistics)
    timestep = tree.at(segment.timestep, 0)
    told = [agent.inspect(x, agent.initial_memory(B), timestep)["value"] for x in (state, moved)]
    assert np.abs(told[0] - told[1]).max() > 1e-3


@pytest.mark.parametrize("separate", [False, True])
def test_parameters_of_the_policy_can_be_replaced(separate: bool) -> None:
    agent, timestep = made(CONFIG.replace(separate=separate), DISCRETE), timesteps(DISCRETE)
    timestep = tree.at(timestep, 0)
    state, other = (agent.init(jax.random.key(i), timestep) for i in range(2))
    params = agent.params(other)
    assert params.keys() == {"encoder", "memory", "head", *(["critic"] if separate else [])}
    put = agent.with_params(state, params)
    chex.assert_trees_all_equal(agent.params(put), params)
    chex.assert_trees_all_equal(put.statistics, state.statistics)
    old, new = (agent.inspect(x, agent.initial_memory(B), timestep) for x in (put, other))
    for name in ("policy", "value"):
        np.testing.assert_array_equal(old[name], new[name])
    np.testing.assert_allclose(new["policy"].sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy_bonus": -0.01}, "entropy_bonus: -0.01 is not between 0 and 1e+30"),
        ({"value_clip": 0.0}, "value_clip: 0.0 is not a finite number above 0"),
        ({"clip": 0.0}, "clip: 0.0 is not a finite number above 0"),
        ({"max_kl": -1.0}, "max_kl: -1.0 is not a finite number above 0"),
        ({"gae_lambda": 1.1}, "gae_lambda: 1.1 is not between 0 and 1"),
        ({"epochs": 0}, "epochs: 0 is below 1"),
        ({"minibatches": 0}, "minibatches: 0 is below 1"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        made(CONFIG.replace(**options), DISCRETE)
    assert str(error.value) == message


def test_minibatches_divide_the_environments(rollout: Any) -> None:
    message = f"^environments: {B} is not a multiple of minibatches = 3"
    with pytest.raises(ValueError, match=message):
        learned(rollout, minibatches=3)


def test_only_floats_can_be_normalised() -> None:
    config = CONFIG.replace(normalize_observations=True)
    with pytest.raises(ValueError, match=r"^normalize_observations: True, but .* Discrete\(n=3\)$"):
        made(config, Spec(Discrete(3), Discrete(2)))
