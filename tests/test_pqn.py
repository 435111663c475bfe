"""PQN: its targets and loss by hand, what it sees again, and what it may not touch."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import tree
from memrl_jax.agents.pqn import PQNConfig, PQNState, pqn, q_loss, targets
from memrl_jax.build import make_body
from memrl_jax.environments import batch
from memrl_jax.environments.base import Arrival, episodic
from memrl_jax.networks import QHead
from memrl_jax.rollout import initial, rollout
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Agent, Environment, Network, Segment, Spec, TimeStep
from tests.test_memory import SMALL

T, B, A = 6, 4, 3
VECTOR = Continuous((2,), jnp.float32, -1, 1)


def walk(masked: bool = False) -> Environment:
    """Episodes of 3 or 4 steps; where masked, one action in three is illegal, and pays 9."""

    def first(key: Any) -> Any:
        x = jax.random.uniform(key, (2,), jnp.float32, -1, 1)
        return (jnp.int32(0), x), x

    def step(key: Any, state: Any, action: Any) -> Arrival:
        t, x = state
        forbidden = masked & ~legal(state)[action]
        reward = jnp.where(forbidden, 9.0, x[0] * (action - 1))
        t, x = t + 1, jax.random.uniform(key, (2,), jnp.float32, -1, 1)
        return Arrival((t, x), x, reward, (t == 3) & (x[1] > 0), t == 4)

    def legal(state: Any) -> Any:
        return jnp.arange(A) != (3 * state[1][0] // 1) % A

    return episodic(first, step, VECTOR, Discrete(A), 4, legal=legal if masked else None)


def agent(memory: str = "none", masked: bool = False, **changes: Any) -> tuple[Agent, PQNConfig]:
    settings = {"encoder": (8,), "previous_action": True, "minibatches": 2, "epochs": 2}
    config = PQNConfig().replace(**settings | changes)
    options = SMALL.get(memory, {"features": 8})
    config = config.replace(memory=memory, memory_args=options)
    spec = walk(masked).spec
    return pqn(config, spec, make_body(config.body, spec)), config


def gather(made: Agent, masked: bool = False, explore: bool = True) -> tuple[PQNState, Segment]:
    """Act for T steps in B environments, twice, and return the second rollout."""
    env = batch(walk(masked))
    actor = jax.jit(lambda: initial(env, made.initial_memory(B), jax.random.key(0), B))()
    state = fresh(made, actor.timestep)

    def policy(key: Any, memory: Any, timestep: TimeStep) -> Any:
        seen = made.inspect(state, memory, timestep)["q"]
        memory, action, _ = made.act(key, state, memory, timestep, explore)
        return memory, action, seen

    act = jax.jit(lambda actor, key: rollout(env, policy, actor, key, T))
    actor, _ = act(actor, jax.random.key(2))
    return state, act(actor, jax.random.key(3))[1]


def fresh(made: Agent, timestep: TimeStep) -> PQNState:
    """Draw parameters of the right shapes; initializers take long to compile."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), timestep))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    draw = lambda x: jnp.asarray(rng.normal(scale=0.5, size=x.shape), x.dtype)  # noqa: E731
    return zeros._replace(params=jax.tree.map(draw, shapes.params))


def network(config: PQNConfig) -> Network:
    """Make the network that an agent of this config has."""
    return make_body(config.body, walk().spec)(QHead(A, config.head, layers=config.body.layers))


def table() -> Network:
    """Q-values are the observation times a scale, so that they can be written down."""

    def step(params: Any, state: Any, timestep: TimeStep) -> Any:
        return state, params * timestep.observation

    return Network(lambda key, t: jnp.float32(1), lambda batch: (), step, step)


def made_up(legal: bool) -> tuple[Segment, Any]:
    """Draw T actions in B environments: values, ends of both kinds, and what is legal."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=(T + 1, B, A)).astype(np.float32)
    last = rng.random((T + 1, B)) < 0.3
    fields: dict[str, Any] = dict(
        observation=q,
        action=np.zeros((T + 1, B), np.int32),
        reward=rng.normal(size=(T + 1, B)).astype(np.float32),
        discount=np.where(last & (rng.random((T + 1, B)) < 0.5), 0, 1).astype(np.float32),
        start=np.concatenate([np.zeros((1, B), bool), last[:-1]]),
        last=last,
        legal=(rng.random((T + 1, B, A)) < 0.5) | np.eye(A, dtype=bool)[1] if legal else (),
    )
    action = rng.integers(A, size=(T, B), dtype=np.int32)
    return jax.tree.map(jnp.asarray, Segment((), TimeStep(**fields), action, ())), q


def expected(segment: Segment, q: Any, discount: float, td_lambda: float) -> Any:
    """Work out the targets [T, B] by the definition, one after the other."""
    t, found = jax.tree.map(np.asarray, segment.timestep), np.zeros((T, B))
    for b in range(B):
        for i in reversed(range(T)):
            allowed = np.ones(A, bool) if isinstance(t.legal, tuple) else t.legal[i + 1, b]
            follows = max(q[i + 1, b, a] for a in range(A) if allowed[a])
            if i < T - 1 and not t.last[i + 1, b]:
                follows = (1 - td_lambda) * follows + td_lambda * found[i + 1, b]
            found[i, b] = t.reward[i + 1, b] + discount * t.discount[i + 1, b] * follows
    return found


@pytest.mark.parametrize("legal", [False, True])
def test_targets_and_loss_by_hand(legal: bool) -> None:
    segment, q = made_up(legal)
    config = PQNConfig(discount=0.9, td_lambda=0.7)
    by_hand = expected(segment, q, 0.9, 0.7)
    after = tree.at(segment.timestep, slice(1, None))
    np.testing.assert_allclose(
        targets(config, after, jnp.asarray(q[1:])), by_hand, rtol=1e-5, atol=1e-6
    )
    chosen = np.take_along_axis(q[:-1], np.asarray(segment.action)[..., None], axis=-1)[..., 0]
    matters = ~np.asarray(segment.timestep.last[:-1])
    loss, metrics = q_loss(jnp.float32(1), table(), config, segment)
    squared = 0.5 * np.square(by_hand - chosen)[matters]
    assert float(loss) == pytest.approx(squared.mean(), rel=1e-5)
    assert float(metrics["loss_sum"]) == float(loss)
    assert float(metrics["q_sum"]) == pytest.approx(float(q.mean()), rel=1e-4)


def test_targets_are_not_differentiated_and_ends_may_be_nan() -> None:
    segment, q = made_up(True)
    config = PQNConfig(discount=0.9, td_lambda=0.7)
    timestep = segment.timestep
    reward = jnp.where(timestep.start, jnp.nan, timestep.reward)  # after the end, it counts nowhere
    illegal = jnp.where(timestep.legal, timestep.observation, 1e9)
    done = jnp.argmax(timestep.legal[:-1], axis=-1)
    strange = segment._replace(
        timestep=timestep._replace(reward=reward, observation=illegal), action=done
    )
    gradient, _ = jax.grad(q_loss, has_aux=True)(jnp.float32(1), table(), config, strange)
    by_hand, found = expected(segment, q, 0.9, 0.7), []
    for t in range(T):
        for b in range(B):
            if not timestep.last[t, b]:
                chosen = q[t, b, done[t, b]]
                found.append((chosen - by_hand[t, b]) * chosen)
    assert float(gradient) == pytest.approx(np.mean(found), rel=1e-4)


@cache
def recorded() -> TimeStep:
    """Return the timesteps [2 T + 1, B] of a random walk."""
    env = batch(walk())

    def policy(key: Any, memory: Any, timestep: TimeStep) -> Any:
        return (), jax.random.randint(key, (B,), 0, A, jnp.int32), ()

    def act() -> Segment:
        actor = initial(env, (), jax.random.key(0), B)
        return rollout(env, policy, actor, jax.random.key(2), 2 * T)[1]

    return jax.jit(act)().timestep


@pytest.mark.parametrize("memory", ["none", "gru", "lru", "gtrxl", "ntm", "frmqn"])
def test_the_actor_saw_the_values_that_are_learned(memory: str) -> None:
    """In a rollout that begins inside episodes, with the memory that the actor had then."""
    made, config = agent(memory)
    timesteps, carried, seen = recorded(), [made.initial_memory(B)], []
    state = fresh(made, tree.at(timesteps, 0))

    @jax.jit
    def act(memory: Any, timestep: TimeStep) -> Any:
        after, _, _ = made.act(jax.random.key(0), state, memory, timestep)
        return after, made.inspect(state, memory, timestep)["q"]

    for t in range(2 * T):
        memory_after, q = act(carried[t], tree.at(timesteps, t))
        carried.append(memory_after)
        seen.append(q)
    second = tree.at(timesteps, slice(T, None))
    assert second.start[1:].any() and not second.start[0].all()
    _, learned = jax.jit(network(config).unroll)(state.params, carried[T], second)
    np.testing.assert_allclose(learned[:-1], np.stack(seen[T:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("explore", [True, False])
def test_nothing_illegal_is_done(memory: str, explore: bool) -> None:
    made, _ = agent(memory, masked=True, epsilon_start=1.0, persistence=0.3)
    _, segment = gather(made, True, explore)
    legal = np.asarray(segment.timestep.legal[:-1])
    done = np.take_along_axis(legal, np.asarray(segment.action)[..., None], axis=-1)
    assert not legal.all() and done.all()
    best = np.argmax(np.where(legal, segment.extras, -np.inf), axis=-1)
    assert np.array_equal(best, segment.action) != explore


def test_learning_follows_the_gradient() -> None:
    """With one minibatch and one epoch, and Adam's first step: the sign of the gradient."""
    made, config = agent(minibatches=1, epochs=1, learning_rate=1e-2, adam_epsilon=1e-30)
    state, segment = gather(made)
    state = made.observe(state, segment)
    assert int(state.env_steps) == np.sum(~np.asarray(segment.timestep.last[:-1]))
    learned, metrics = jax.jit(made.learn)(jax.random.key(0), state, segment)
    loss = jax.jit(jax.value_and_grad(q_loss, has_aux=True), static_argnums=(1, 2))
    (value, _), gradient = loss(state.params, network(config), config, segment)
    assert int(metrics["updates"]) == 1
    assert float(metrics["loss_sum"]) == pytest.approx(float(value), rel=1e-4)
    leaves = map(jax.tree.leaves, (state.params, learned.params, gradient))
    for old, new, slope in zip(*leaves, strict=True):
        clear = np.abs(slope) > 1e-5
        expected = np.asarray(old - 1e-2 * np.sign(slope))
        np.testing.assert_allclose(new[clear], expected[clear], rtol=1e-3, atol=1e-5)


def test_minibatches_must_divide_the_environments() -> None:
    made, _ = agent(minibatches=3)
    state, segment = jax.eval_shape(lambda: gather(made))
    with pytest.raises(ValueError, match=r"^environments: 4 is not a multiple of minibatches = 3"):
        jax.eval_shape(made.learn, jax.random.key(0), state, segment._replace(extras=()))


def test_parameters_may_be_put_in() -> None:
    made, _ = agent("gru")
    timestep = batch(walk()).reset(jax.random.split(jax.random.key(0), B))[1]
    one = fresh(made, timestep)
    other = one._replace(params=jax.tree.map(lambda x: x + 1, one.params))
    assert set(made.params(one)) == {"encoder", "memory", "head"}
    changed = made.with_params(one._replace(env_steps=jnp.int32(7)), made.params(other))
    jax.tree.map(np.testing.assert_array_equal, changed, other._replace(env_steps=jnp.int32(7)))


REFUSED = [
    ({"minibatches": 0}, "minibatches: 0 is below 1"),
    ({"epochs": 0}, "epochs: 0 is below 1"),
    ({"head": (4, 0)}, "head: 0 is below 1"),
    ({"td_lambda": 1.1}, "td_lambda: 1.1 is not between 0 and 1"),
    ({"discount": -0.1}, "discount: -0.1 is not between 0 and 1"),
    ({"epsilon_end": 2.0}, "epsilon_end: 2.0 is not between 0 and 1"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_settings_out_of_range(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        agent(**changes)


@pytest.mark.parametrize("actions", [(Discrete(2), Discrete(3)), VECTOR])
def test_one_discrete_action_is_needed(actions: Any) -> None:
    spec = Spec(VECTOR, actions)
    with pytest.raises(ValueError, match=r"^agent: pqn takes one Discrete action, not") as error:
        pqn(PQNConfig(), spec, make_body(PQNConfig().body, spec))
    assert ("environments.numbered" in str(error.value)) == (actions is not VECTOR)
