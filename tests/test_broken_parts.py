"""Faults planted in memories, replay memories and agents: each is named, in one line.

Those planted in environments are in `test_testing.py`.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import build, tree
from memrl_jax.agents import TabularConfig
from memrl_jax.config import Config
from memrl_jax.replay import prioritized, uniform
from memrl_jax.testing import check_agent, check_memory, check_replay
from memrl_jax.types import Agent, Environment, NeuralMemory, ReplayMemory

RNG = np.random.default_rng(0)


def named(check: Callable[..., None], message: str, *given: Any, **options: Any) -> None:
    """Assert that a check fails with one line that begins in this way."""
    with pytest.raises(ValueError) as error:
        check(*given, **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value), error.value


def leaky(
    reset: Callable[[Any, Any], Any] = lambda start, h: jnp.where(start, 0, h),
    decay: float = 0.5,
    see: Callable[[Any], Any] = lambda x: x,
) -> NeuralMemory:
    """Remember a projection of what is seen, half of it a step later; `see` is given that."""

    def init(key: Any, x: Any) -> Any:
        return {"w": jax.random.normal(key, (len(x), 2))}

    def step(params: Any, state: Any, x: Any, start: Any) -> Any:
        h = decay * reset(start, state["h"]) + see(x @ params["w"])
        return {"h": h}, jnp.tanh(h)

    def unroll(params: Any, state: Any, xs: Any, starts: Any) -> Any:
        return jax.lax.scan(lambda state, x: step(params, state, *x), state, (xs, starts))

    return NeuralMemory(init, lambda: {"h": jnp.zeros(2)}, step, unroll)


def clocked() -> NeuralMemory:
    """Know the time, also after a start."""
    inner = leaky()

    def step(params: Any, state: Any, x: Any, start: Any) -> Any:
        after, y = inner.step(params, state[0], x, start)
        return (after, state[1] + 1), y + 0.1 * state[1]

    def unroll(params: Any, state: Any, xs: Any, starts: Any) -> Any:
        return jax.lax.scan(lambda state, x: step(params, state, *x), state, (xs, starts))

    return inner._replace(
        initial_state=lambda: (inner.initial_state(), jnp.int32(0)), step=step, unroll=unroll
    )


def through(start: Any, h: Any) -> Any:
    """Reset, but let gradients pass."""
    return jnp.where(start, 0, h) + jnp.where(jnp.isfinite(h), h - jax.lax.stop_gradient(h), 0)


@jax.custom_batching.custom_vmap
def mixed(x: Any) -> Any:
    return x


@mixed.def_vmap
def _mixed(size: int, batched: Any, x: Any) -> Any:
    return x + jnp.mean(x, axis=0), True


SOUND = leaky()
MEMORIES: dict[str, tuple[Any, str]] = {
    "no reset": (
        leaky(lambda start, h: h),
        "memory: what came before a start at step 0 is seen after it: y is ",
    ),
    "a reset by multiplication": (
        leaky(lambda start, h: h * (1 - start)),
        "memory: NaN survives a start at step 5: y is nan, not ",
    ),
    "a time that is not reset": (
        clocked(),
        "memory: what came before a start at step 0 is seen after it: y is ",
    ),
    "a gradient through a reset": (
        leaky(through),
        "memory: a gradient crosses a start at step 5, to the input at step 4",
    ),
    "no reset in unroll": (
        SOUND._replace(unroll=leaky(lambda start, h: h).unroll),
        "memory: step differs from unroll: y is ",
    ),
    "another last state of unroll": (
        SOUND._replace(
            unroll=lambda *x: (lambda s, ys: ({"h": s["h"] / 2}, ys))(*SOUND.unroll(*x))
        ),
        "memory: step differs from unroll: state['h'] is ",
    ),
    "another dtype": (
        SOUND._replace(step=lambda *x: (lambda s, y: ({"h": s["h"] > 0}, y))(*SOUND.step(*x))),
        "memory: step: state['h'] is bool[2], not float32[2]",
    ),
    "an output at the end alone": (
        SOUND._replace(unroll=lambda *x: (lambda s, ys: (s, ys[-1]))(*SOUND.unroll(*x))),
        "memory: unroll: ys is float32[2], not float32[17, 2]",
    ),
    "an error inside": (
        SOUND._replace(step=lambda *_: 1 / 0),
        "memory: step raised ZeroDivisionError: division by zero",
    ),
    "parameters from elsewhere": (
        SOUND._replace(init=lambda key, x: {"w": jnp.asarray(RNG.normal(size=(3, 2)), "float32")}),
        "memory: init: the same key gives other parameters: params['w'] is ",
    ),
    "sequences that meet": (
        leaky(see=mixed),
        "memory: under vmap, sequence 0 differs from itself alone: y is ",
    ),
    "nothing learned from before": (
        leaky(lambda start, h: jax.lax.stop_gradient(jnp.where(start, 0, h))),
        "memory: no gradient from step 5 on reaches an input before it",
    ),
    "an exploding gradient": (
        leaky(lambda start, h: jnp.where(start, 0, h + 2 * (h - jax.lax.stop_gradient(h)))),
        "memory: after 1000 steps with inputs of 1, the gradient of params['w'] is not finite",
    ),
}


@pytest.mark.parametrize("fault", MEMORIES)
def test_faults_of_memories_are_named(fault: str) -> None:
    memory, message = MEMORIES[fault]
    named(check_memory, message, memory)


def test_sound_memories_pass() -> None:
    check_memory(leaky, decay=0.9)
    check_memory("gru", inputs=2, features=4)
    named(check_memory, "memory: 'gruu' is unknown; did you mean 'gru'?", "gruu")
    named(check_memory, "memory: 3 is not a NeuralMemory", lambda: 3)


def broken(change: Callable[[ReplayMemory], Any], make: Any = uniform) -> Callable[..., Any]:
    """Make replay memories of which a function is another."""
    return lambda *sizes: (lambda replay: replay._replace(**change(replay)))(make(*sizes))


def after(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """Change what is drawn."""

    def sample(replay: ReplayMemory) -> Any:
        return {"sample": lambda key, state: change(replay.sample(key, state))}

    return broken(sample)


def of_segment(change: Callable[[Any], Any]) -> Callable[..., Any]:
    return after(lambda drawn: drawn._replace(segment=change(drawn.segment)))


def of_timestep(change: Callable[[Any], Any]) -> Callable[..., Any]:
    return of_segment(lambda x: x._replace(timestep=x.timestep._replace(**change(x.timestep))))


WINDOW = "in the window that begins at step "
REPLAYS: dict[str, tuple[Any, str]] = {
    "no start": (
        of_timestep(lambda t: {"start": t.start.at[0].set(False)}),
        "replay: timestep.start is not what was added, " + WINDOW,
    ),
    "actions of others": (
        of_segment(lambda x: x._replace(action=jnp.roll(x.action, 1, axis=1))),
        "replay: action is not what was added, " + WINDOW,
    ),
    "rewards a step late": (
        of_timestep(lambda t: {"reward": jnp.roll(t.reward, 1, axis=0)}),
        "replay: timestep.reward is not what was added, " + WINDOW,
    ),
    "another dtype": (
        of_segment(lambda x: x._replace(extras={**x.extras, "mask": 1.0 * x.extras["mask"]})),
        "replay: sample.extras['mask'] is float32[1, 1024, 3], not bool[1, 1024, 3]",
    ),
    "a window too few": (
        of_segment(lambda x: x._replace(timestep=tree.at(x.timestep, slice(1, None)))),
        "replay: sample.timestep.observation is float32[1, 1024, 14], not float32[2, 1024, 14]",
    ),
    "windows across the head": (
        broken(
            lambda replay: {
                "sample": lambda key, state: replay.sample(
                    key, state._replace(added=state.added + (state.added > 5))
                )
            }
        ),
        "replay: the window that begins at step ",
    ),
    "ready too early": (
        broken(lambda replay: {"can_sample": lambda state: jnp.bool_(True)}),
        "replay: can_sample: True after 1 segments, when no window is whole",
    ),
    "a warm-up that is too short": (
        broken(lambda replay: {"warmup": replay.warmup - 1}),
        "replay: warmup: 1 after 1 segments, when no window is whole",
    ),
    "weights of nothing": (
        after(lambda drawn: drawn._replace(weight=jnp.ones_like(drawn.weight))),
        "replay: weight: not 0 after 1 segments, when no window is whole",
    ),
    "a weight that is none": (
        after(lambda drawn: drawn._replace(weight=jnp.where(drawn.weight > 0, jnp.nan, 0))),
        "replay: weight: nan, of the window that begins at step ",
    ),
    "keys from elsewhere": (
        broken(
            lambda replay: {
                "sample": lambda key, state: replay.sample(
                    jax.random.fold_in(key, int(RNG.integers(1 << 30))), state
                )
            }
        ),
        "replay: sample: the same key draws other windows: sample.segment.timestep.observation is ",
    ),
    "priorities turned over": (
        broken(
            lambda replay: {
                "update": lambda state, index, priority: replay.update(state, index, 1 / priority)
            },
            prioritized,
        ),
        "replay: update: windows of priority 10.0 are drawn 0.0",
    ),
    "an update that writes": (
        broken(
            lambda replay: {
                "update": lambda state, index, priority: (
                    state._replace(record=state.record ^ 1),
                    {},
                )
            }
        ),
        "replay: ",
    ),
}


@pytest.mark.parametrize("fault", REPLAYS)
def test_faults_of_replay_memories_are_named(fault: str) -> None:
    make, message = REPLAYS[fault]
    named(check_replay, message, make)


def sound(env: Environment, discount: float = 0.9) -> Agent:
    """Make an agent that learns the probes from tables, of the last three observations."""
    config = TabularConfig(remembered=3, learning_rate=0.5).replace(
        discount=discount, epsilon_start=1.0, epsilon_end=1.0
    )
    return build.make_agent(Config(agent=config), env)


def changed(change: Callable[[Agent], Any]) -> Callable[[Environment], Agent]:
    """Make agents of which a function is another."""
    return lambda env: (lambda agent: agent._replace(**change(agent)))(sound(env))


def told(**fields: Any) -> Callable[[Any], Any]:
    """Return a function of segments that changes timesteps."""
    return lambda x: x._replace(
        timestep=x.timestep._replace(**{k: f(x.timestep) for k, f in fields.items()})
    )


def learning_from(change: Callable[[Any], Any]) -> Callable[[Environment], Agent]:
    return changed(
        lambda agent: {
            "learn": lambda key, state, segment: agent.learn(key, state, change(segment))
        }
    )


def acting(change: Callable[..., Any]) -> Callable[[Environment], Agent]:
    """Let `change(act, key, explore, *given)` act."""

    def acts(agent: Agent) -> Any:
        def act(key: Any, *given: Any, explore: bool = True) -> Any:
            return change(agent.act, key, explore, *given)

        return {"act": act}

    return changed(acts)


AGENTS: dict[str, tuple[Any, str, str]] = {
    "another discount": (
        partial(sound, discount=0.5),
        "discrete",
        "agent: the probe 'later', after 300 rollouts: its value is -0.25, not -0.81, at step 0",
    ),
    "actions taken for others": (
        learning_from(lambda x: x._replace(action=(x.action + 1) % 3)),
        "discrete",
        "agent: the probe 'acted', after 300 rollouts: earns -1, not 1, at step 1",
    ),
    "an end that teaches": (
        learning_from(told(last=lambda t: jnp.zeros_like(t.last))),
        "discrete",
        "agent: learn: what is done where an episode has ended changes what is learned: params",
    ),
    "actions from elsewhere": (
        acting(
            lambda act, key, explore, *given: act(
                jax.random.fold_in(key, int(RNG.integers(1 << 30))), *given, explore=explore
            )
        ),
        "discrete",
        "agent: act: the same arguments give another action, with the probe 'constant' at step 0",
    ),
    "greedy and yet at random": (
        acting(lambda act, key, explore, *given: act(key, *given, explore=True)),
        "discrete",
        "agent: act: without exploring, another key gives another action, with the probe ",
    ),
    "deaf to what is legal": (
        acting(
            lambda act, key, explore, state, memory, t: act(
                key, state, memory, t._replace(legal=jnp.ones_like(t.legal)), explore=explore
            )
        ),
        "masked",
        "agent: the probe 'constant': ",
    ),
    "other parameters than were given": (
        changed(
            lambda agent: {
                "with_params": lambda state, params: agent.with_params(
                    state, jax.tree.map(lambda x: x + 1, params)
                )
            }
        ),
        "discrete",
        "agent: with_params: the parameters are others than were given, with the probe 'constant'",
    ),
}


@pytest.mark.parametrize("fault", AGENTS)
def test_faults_of_agents_are_named(fault: str) -> None:
    make, actions, message = AGENTS[fault]
    named(check_agent, message, make, actions, steps=300, tolerance=0.05, remembers=True)


def test_a_sound_agent_passes() -> None:
    check_agent(sound, steps=300, tolerance=0.05, remembers=True)
    named(check_agent, "actions: 'discret' is unknown; did you mean", sound, "discret")


def test_checks_need_nothing_that_only_tests_need() -> None:
    """And `import memrl_jax` does without them."""
    program = """
import sys
for name in ("pytest", "chex", "hypothesis", "_pytest"):
    sys.modules[name] = None
import memrl_jax
assert not [x for x in sys.modules if x.startswith("memrl_jax.testing")]
from memrl_jax.testing import check_agent, check_environment, check_memory, check_replay
"""
    subprocess.run([sys.executable, "-c", program], check=True)
