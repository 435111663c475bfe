"""Soft actor-critic: its losses in NumPy, whom their gradients move, and its memories."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from memrl_jax import tree
from memrl_jax.agents import SACConfig
from memrl_jax.agents.sac import _networks, sac
from memrl_jax.agents.sac_loss import Networks, burned_in, estimates, sac_loss
from memrl_jax.agents.soft import choices
from memrl_jax.build import make_body, make_replay, make_train
from memrl_jax.environments import Arrival, episodic
from memrl_jax.replay import uniform
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.train import make_trainer
from memrl_jax.types import Environment, Network, Sample, Segment, Spec, TimeStep

L, N, A = 4, 5, 3
GAMMA = 0.9
CONTROL = Continuous((1,), jnp.dtype(jnp.float32), -1.0, 3.0)
SPECS = {"discrete": Spec(Discrete(A), Discrete(A), legal=True), "continuous": Spec(None, CONTROL)}
KEY = jax.random.key(0)


def written_down(kind: str) -> Networks:
    """Parameters of the policy and values of actions are observed, but for a scale.

    The value of a continuous choice is what is observed, times the choice, less its square.
    """

    def policy(params, state, timestep):
        return state, params["scale"] * timestep.observation["policy"]

    def critics(params, state, timestep, *choice):
        q = timestep.observation["q"]
        if choice:
            q = (q * choice[0] - choice[0] ** 2)[..., 0]
        return state, jnp.stack([scale * q + 1 for scale in params["scale"]])

    def network(step: Any) -> Network:
        return Network(lambda key, t: {}, lambda batch: (), step, step)

    return Networks(network(policy), network(critics), shared=False, stored=False)


@pytest.fixture(scope="module", params=["discrete", "continuous"])
def case(request) -> Any:
    """Windows with masks, rewards that count for nothing, and one window that weighs nothing."""
    rng = np.random.default_rng(0)
    shape = L + 1, N
    discrete = request.param == "discrete"
    last = rng.random(shape) < 0.3
    legal = rng.random((*shape, A)) < 0.6
    action = rng.integers(A, size=(L, N))
    np.put_along_axis(legal[:-1], action[..., None], True, axis=-1)
    legal[-1, :, 0] = True
    reward = rng.normal(size=shape)
    reward[1:][last[:-1]] = np.nan
    reward[:, -1] = np.nan
    observed = {
        "policy": rng.normal(size=(*shape, A if discrete else 2)) / 2,
        "q": rng.normal(size=(*shape, A if discrete else 1)),
    }
    fields: Any = dict(
        observation=jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), observed),
        action=(),
        reward=jnp.asarray(reward, jnp.float32),
        discount=jnp.where(last & (rng.random(shape) < 0.5), 0.0, 1.0),
        start=jnp.zeros(shape, bool),
        last=jnp.asarray(last),
        legal=jnp.asarray(legal) if discrete else (),
    )
    done = action.astype(np.int32) if discrete else rng.uniform(-1, 3, (L, N, 1)).astype(np.float32)
    weight = rng.random(N)
    weight[-1] = 0
    segment = Segment((), TimeStep(**fields), jnp.asarray(done), ())
    params = {
        "actor": {"scale": jnp.float32(1.5)},
        "critics": {"scale": jnp.asarray([1.0, -0.5])},
        "log_temperature": jnp.log(jnp.float32(0.3)),
    }
    target_critics = {"scale": jnp.asarray([0.5, 2.0])}
    sample = Sample(segment, None, jnp.asarray(weight, jnp.float32))
    return request.param, params, target_critics, sample


def drawn_by_hand(kind: str, scale: float, timestep: TimeStep) -> tuple[Any, Any]:
    """Return choices and their entropies [L + 1, N]."""
    parameters = scale * np.asarray(timestep.observation["policy"], np.float64)
    if kind == "discrete":
        p = np.exp(parameters) * np.asarray(timestep.legal)
        p /= p.sum(axis=-1, keepdims=True)
        return p, -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
    # The noise that was drawn does not depend on the parameters.
    drawn = choices(SPECS[kind], None).distribution.sample(KEY, jnp.zeros(parameters.shape))
    z = np.arctanh((np.asarray(drawn, np.float64) - 1) / 2)  # the bounds -1 and 3 are -1 and 1
    mean, log_std = parameters[..., :1], np.clip(parameters[..., 1:], -20, 2)
    choice = np.tanh(mean + np.exp(log_std) * z)
    log_prob = -(z**2) / 2 - np.log(2 * np.pi) / 2 - log_std - np.log1p(-(choice**2))
    return choice, -log_prob[..., 0]


def worth_by_hand(kind: str, scales: Any, timestep: TimeStep, choice: Any) -> Any:
    """Return the values of choices by each critic: [2, ..., A], or [2, ...] for continuous ones."""
    q = np.asarray(timestep.observation["q"], np.float64)
    q = q if kind == "discrete" else (q * choice - choice**2)[..., 0]
    return np.stack([scale * q + 1 for scale in np.asarray(scales, np.float64)])


def losses_by_hand(case: Any, actor: float) -> dict[str, Any]:
    """Return the three losses, with the policy's parameters times `actor`, and their parts."""
    kind, params, target_critics, sample = case
    timestep, action = sample.segment.timestep, np.asarray(sample.segment.action)
    before, after = tree.at(timestep, slice(-1)), tree.at(timestep, slice(1, None))
    alpha = 0.3
    choice, entropy = drawn_by_hand(kind, actor, timestep)

    def value(scales: Any, timestep: TimeStep, part: slice) -> Any:
        q = worth_by_hand(kind, scales, timestep, choice[part]).min(axis=0)
        expected = (q * choice[part]).sum(axis=-1) if kind == "discrete" else q
        return expected + alpha * entropy[part]

    bootstrap = value(target_critics["scale"], after, slice(1, None))
    target = after.reward + GAMMA * np.asarray(after.discount) * bootstrap
    if kind == "discrete":
        q = worth_by_hand(kind, params["critics"]["scale"], before, None)
        q = np.take_along_axis(q, np.stack([action, action])[..., None], axis=-1)[..., 0]
        wanted = 0.5 * np.log(np.sum(before.legal, axis=-1))
    else:
        q = worth_by_hand(kind, params["critics"]["scale"], before, (action - 1) / 2)
        wanted = -1.0
    counts = ~np.asarray(before.last) & (np.asarray(sample.weight) > 0)
    error = np.where(counts, target - q, 0)

    def mean(x: Any) -> Any:
        return np.sum(np.where(counts, x, 0) * np.asarray(sample.weight)) / (L * N)

    return {
        "loss": mean(np.sum(error**2, axis=0) / 2),
        "actor_loss": -mean(value(params["critics"]["scale"], before, slice(-1))),
        "surplus": mean(entropy[:-1] - wanted),
        "slope": [mean(-x * y) for x, y in zip(error, (q - 1), strict=True)],
        "error": np.abs(error).mean(axis=0),
        "counts": counts,
    }


def test_the_losses_and_their_gradients_by_hand(case):
    """Each part of the parameters follows its own loss alone."""
    kind, params, target_critics, sample = case
    made = choices(SPECS[kind], None)

    @jax.jit
    def gradients(params):
        rest = target_critics, written_down(kind), made, GAMMA, KEY, sample
        return jax.value_and_grad(sac_loss, has_aux=True)(params, *rest)

    (total, loss), gradient = gradients(params)
    expected = losses_by_hand(case, 1.5)
    for name in ("loss", "actor_loss"):
        np.testing.assert_allclose(loss.means[name], expected[name], rtol=1e-4, atol=2e-5)
    sum_of_all = expected["loss"] + expected["actor_loss"] + 0.3 * expected["surplus"]
    np.testing.assert_allclose(total, sum_of_all, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(loss.error, expected["error"], atol=1e-4)
    np.testing.assert_array_equal(loss.valid, expected["counts"])

    # d target / d scale is no part of it; q = scale times something, and 1.
    slopes = np.asarray(expected["slope"]) / np.asarray(params["critics"]["scale"])
    np.testing.assert_allclose(gradient["critics"]["scale"], slopes, rtol=1e-4)
    np.testing.assert_allclose(gradient["log_temperature"], 0.3 * expected["surplus"], rtol=1e-4)
    step = 1e-5
    up, down = (losses_by_hand(case, 1.5 + sign * step)["actor_loss"] for sign in (1, -1))
    np.testing.assert_allclose(gradient["actor"]["scale"], (up - down) / (2 * step), rtol=1e-3)


def test_the_entropy_of_a_continuous_choice_does_not_depend_on_the_unit():
    parameters = jax.random.normal(KEY, (7, 2))
    wide = choices(Spec(None, Continuous((1,), jnp.float32, -100.0, 300.0)), None)
    narrow = choices(SPECS["continuous"], None)
    chex.assert_trees_all_close(
        wide.draw(KEY, parameters, ()), narrow.draw(KEY, parameters, ()), rtol=1e-4
    )
    assert wide.target_entropy(()) == -1
    pair = Spec(None, (CONTROL, Continuous((2, 2), jnp.float32, 0.0, np.ones((2, 2)))))
    assert choices(pair, -0.5).target_entropy(()) == -2.5
    legal = jnp.asarray([[True, True, False], [False, True, False]])
    wanted = choices(SPECS["discrete"], 0.25).target_entropy(legal)
    np.testing.assert_allclose(wanted, [0.25 * np.log(2), 0])


SMALL: Any = memrl_jax.Config(agent=SACConfig()).replace(
    environment="Pendulum-positions",
    environments=2,
    rollout_length=4,
    total_steps=48,
    memory="gru",
    memory_args={"features": 4},
    encoder=(4,),
    head=(4,),
    window=3,
    batch_size=5,
    capacity=80,
    learning_starts=24,
)
KINDS = {"separate": {}, "shared": {"shared": True}, "stored": {"stored_state": True}}


def observed(steps: int, batch: int, starts: Any = ()) -> TimeStep:
    """Make up timesteps [steps + 1, B] with two observed numbers; some begin an episode."""
    rng = np.random.default_rng(1)
    shape = steps + 1, batch
    start = np.zeros(shape, bool)
    start[list(starts)] = True
    fields: Any = dict(
        observation=rng.normal(size=(*shape, 2)),
        action=rng.uniform(-1, 3, size=(*shape, 1)),
        reward=rng.normal(size=shape),
        discount=np.ones(shape),
    )
    fields = {name: jnp.asarray(x, jnp.float32) for name, x in fields.items()}
    last = np.roll(start, -1, axis=0)
    return TimeStep(**fields, start=jnp.asarray(start), last=jnp.asarray(last))


@pytest.fixture(scope="module", params=KINDS)
def made(request) -> Any:
    """Networks of a kind, their parameters, and memories as the actor carries them."""
    config = SMALL.replace(**KINDS[request.param])
    spec = Spec(Continuous((2,), jnp.dtype(jnp.float32), -1.0, 1.0), CONTROL)
    body = make_body(config.agent.body, spec)
    replay = uniform(10, 4, 3, 5, 4 if config.agent.experience.stored_state else 1)
    agent = sac(config.agent, spec, body, replay)
    timestep = observed(8, 5, starts=[5])
    state = jax.jit(agent.init)(KEY, tree.at(timestep, 0))
    choice = choices(spec, None)
    networks = _networks(config.agent, choice, body)
    act = jax.jit(agent.act)
    memories = [agent.initial_memory(5)]
    for t in range(8):
        memory, _, _ = act(KEY, state, memories[-1], tree.at(timestep, t))
        memories.append(memory)
    return agent, state, networks, choice, timestep, memories


def test_burn_in_brings_memories_up_to_date_and_teaches_nothing(made):
    """What comes after it is seen as the actor saw it, and alone moves parameters."""
    _, state, networks, choice, timestep, memories = made
    params, target_critics = state.learner.params, state.learner.target_critics
    segment = Segment(memories[0], timestep, timestep.action[1:], ())

    def begun(params):
        return burned_in(params, target_critics, networks, choice, 3, segment)

    def thought(params, memories, rest):
        x = estimates(params, target_critics, networks, choice, GAMMA, KEY, memories, rest)
        return jnp.sum(x.q) + jnp.sum(x.value), x

    (own, judges, targets), rest = jax.jit(begun)(params)
    chex.assert_trees_all_equal(rest.timestep, tree.at(timestep, slice(3, None)))
    chex.assert_trees_all_equal(rest.action, segment.action[3:])
    chex.assert_trees_all_close(judges, targets, atol=1e-6)  # of the same parameters, so far
    now = memories[3]
    chex.assert_trees_all_close(own, now[0] if networks.carried else now, atol=1e-6)
    if networks.carried or networks.shared:
        chex.assert_trees_all_close(judges, now[1] if networks.carried else now, atol=1e-6)

    @jax.jit
    def gradients(params, memories):
        inside = jax.grad(lambda params: thought(params, *begun(params))[0])(params)
        outside, x = jax.grad(thought, has_aux=True)(params, memories, rest)
        return inside, outside, x

    inside, outside, x = gradients(params, (own, judges, targets))
    chex.assert_trees_all_close(inside, outside, atol=1e-5)
    assert all(np.any(y != 0) for y in jax.tree.leaves(outside["actor"]["head"]))
    # Two steps on, an episode begins: nothing of what was remembered is known there.
    forgotten = jax.tree.map(lambda x: x + 1, (own, judges, targets))
    _, _, y = gradients(params, forgotten)
    for name, axes, first in (("q", (slice(None),), 2), ("target", (), 1), ("value", (), 2)):
        one, other = getattr(x, name), getattr(y, name)
        same, differs = ((*axes, slice(*x)) for x in ((first, None), (first,)))
        np.testing.assert_array_equal(one[same], other[same])
        assert np.all(one[differs] != other[differs])


def test_learning_moves_all_and_averages_the_critics(made):
    agent, state, networks, _, timestep, memories = made
    segments = [
        Segment(memories[t], tree.at(timestep, slice(t, t + 5)), timestep.action[t + 1 : t + 5], ())
        for t in (0, 4)
    ]
    observe = jax.jit(agent.observe)
    for segment in segments:
        state = observe(state, segment)
    old = state.learner
    after, metrics = jax.jit(agent.learn)(KEY, state, segments[-1])
    new = after.learner
    assert metrics["updates"] == 1 and np.isfinite(metrics["loss_sum"])
    chex.assert_trees_all_close(
        new.target_critics,
        jax.tree.map(lambda x, y: 0.995 * x + 0.005 * y, old.target_critics, new.params["critics"]),
        atol=1e-6,
    )
    # Adam's first step is the learning rate, whatever a gradient's size.
    assert np.isclose(abs(new.params["log_temperature"] - old.params["log_temperature"]), 1e-3)
    for name in ("actor", "critics"):
        moved = jax.tree.map(lambda x, y: np.any(x != y), new.params[name], old.params[name])
        assert all(jax.tree.leaves(moved["head"]))
    again = agent.with_params(after, agent.params(after)).learner
    chex.assert_trees_all_equal(again.params, new.params)
    chex.assert_trees_all_equal(again.target_critics, new.params["critics"])
    chex.assert_trees_all_equal(again.optimizer, old.optimizer)
    assert {"encoder", "memory", "head"} <= agent.params(after).keys()
    assert ([*new.params["actor"]] == ["head"]) == networks.shared


def test_training_under_the_checks_of_jax():
    config = SMALL.replace(replay="prioritized", burn_in=2, stored_state=True)
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        jax.jit(make_train(config)).trace(KEY)


def errand() -> Environment:
    """See for a moment which of two things is wanted, and do it two steps later."""

    def first(key):
        wanted = jax.random.randint(key, (), 0, 2)
        return (wanted, jnp.int32(0)), 2 * wanted.astype(jnp.float32)[None] - 1

    def step(key, state, action):
        wanted, time = state
        asked = time == 2
        reward = jnp.where(action == 0, 0.8, action == wanted + 1)
        shown = jnp.zeros(1, jnp.float32)
        return Arrival((wanted, time + 1), shown, jnp.where(asked, reward, 0.0), asked, False)

    def legal(state):
        return jnp.asarray([False, True, True])

    observations = Continuous((1,), jnp.dtype(jnp.float32), -1.0, 1.0)
    return episodic(first, step, observations, Discrete(3), 3, legal)


def test_an_errand_is_remembered():
    """By legal actions alone: the illegal one would be nearly right either way."""
    config = SMALL.replace(
        rollout_length=6,
        environments=16,
        memory_args={"features": 8},
        encoder=(8,),
        head=(8,),
        window=3,
        batch_size=64,
        capacity=9600,
        learning_starts=960,
        updates=4,
        learning_rate=3e-3,
        first_temperature=0.1,
        target_rate=0.02,
    )
    env = errand()
    body = make_body(config.agent.body, env.spec)
    agent = sac(config.agent, env.spec, body, make_replay(config.agent.experience, config))
    trainer = make_trainer(env, agent, 16, 6)

    @jax.jit
    def run(key):
        train, _ = trainer.init(key)
        train, _ = jax.lax.scan(lambda train, _: trainer.step(train), train, length=150)
        return trainer.evaluate(key, train.agent, 64).total

    assert np.all(run(KEY) == 1)


@pytest.mark.parametrize("actions, settings, message", [
    ((Discrete(2),) * 2, {}, "agent: sac takes one Discrete action.*environments.numbered"),
    ((CONTROL, Discrete(2)), {}, "agent: sac takes one Discrete action"),
    (Continuous((1,), jnp.float32, -np.inf, 1), {}, "actions: tanh_normal needs finite bounds"),
    (CONTROL, {"updates": 0}, "updates: 0 is below 1"),
    (CONTROL, {"target_rate": 1.5}, "target_rate: 1.5 is not between 0 and 1"),
    (CONTROL, {"first_temperature": 0.0}, "first_temperature: 0.0 is not between 1e-30 and 1e"),
], ids=str)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(actions, settings, message):
    spec = Spec(Continuous((2,), jnp.dtype(jnp.float32), -1.0, 1.0), actions)
    config = SMALL.replace(**settings)
    with pytest.raises(ValueError, match=f"^{message}") as error:
        sac(config.agent, spec, make_body(config.agent.body, spec), uniform(10, 4, 3, 5))
    assert "\n" not in str(error.value)
