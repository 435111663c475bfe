"""Every memory learns: what it is shown under supervision, and inside every agent."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memrl_jax
from benchmarks import agents
from memrl_jax.build import make_agent, make_environment
from memrl_jax.memory import MEMORIES
from memrl_jax.tasks import accuracy, make_probe, remember_first
from memrl_jax.tasks import train as train_probe
from memrl_jax.tasks.base import score
from memrl_jax.types import Segment
from tests.small import SMALL, random_segment

# What lets a memory keep something for 16 steps, where its defaults do not: gates that begin nearly
# shut (see `with_horizon`), as many frames as there are inputs.
ARGS: dict[str, Any] = {
    "frame_stack": {"features": 8, "frames": 16},
    "gru": {"features": 16, "horizon": 20},
    "lstm": {"features": 16, "horizon": 20},
    "mingru": {"features": 16, "horizon": 20},
    "ffm": {"features": 16, "traces": 16},
    "shm": {"features": 16},
    "gtrxl": {"features": 16, "heads": 2},
    # An LSTM would keep the symbol beside the memory, more slowly.
    "ntm": {"features": 16, "slots": 16, "width": 8, "hidden": 32, "controller": "feedforward"},
    "dnc": {"features": 16, "slots": 8, "width": 8, "hidden": 32},
    "memn2n": {"features": 16, "slots": 16},
    "kv_memory": {"features": 16, "slots": 16},
    "deltanet, gated": {"features": 16, "gated": True},
    **{name: {"features": 16, "frames": 17} for name in ("mqn", "rmqn", "frmqn")},
}
# The share of answers that has to be right, of four symbols; an average of all inputs mixes the
# first with those after it, and takes larger steps to be told apart. With those of the others, one
# NTM in eight never tells all symbols apart.
FLOORS, RATES = {"memory_trace": 0.6}, {"memory_trace": 1e-2, "ntm": 2e-3}
UPDATES = {"ntm": 800, "memory_trace": 400, "lru": 400, "s5": 400}
SLOW = {"ntm", "dnc"}  # to run, so that optimizing what is compiled pays
REMEMBER = [name for name in MEMORIES if name != "none"] + ["deltanet, gated"]


@pytest.mark.parametrize("name", REMEMBER)
def test_it_remembers_the_first_of_16_inputs(name: str) -> None:
    """When it is stepped, as an agent would, after learning from whole sequences."""
    task = remember_first(16)
    memory = MEMORIES[name.split(",")[0]](**ARGS.get(name, {"features": 16}))
    probe = make_probe(task, memory, width=16, batch_size=16, learning_rate=RATES.get(name, 5e-3))

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": int(name in SLOW)})
    @jax.vmap
    def learn(key: Any) -> Any:
        state, _ = train_probe(probe, key, UPDATES.get(name, 200))
        examples = jax.vmap(task.sample)(jax.random.split(jax.random.key(1), 256))
        logits = jax.vmap(probe.predict_stepwise, (None, 0))(state.params, examples.input)
        return accuracy(jax.tree.map(jnp.sum, jax.vmap(partial(score, task))(logits, examples)))

    right = learn(jax.vmap(jax.random.key)(jnp.arange(2)))
    assert right.min() >= FLOORS.get(name, 0.95), f"{name}: {right}"


SMALLEST: dict[str, Any] = {
    "none": {},
    "frame_stack": {"features": 4, "frames": 3},
    "gtrxl": {"features": 4, "heads": 2, "window": 3},
    "ffm": {"features": 4, "traces": 3, "contexts": 2},
    "shm": {"features": 4, "hidden": 3},
    "ntm": {"features": 4, "slots": 4, "width": 3, "hidden": 4},
    "dnc": {"features": 4, "slots": 4, "width": 3, "read_heads": 1, "hidden": 4},
    **{name: {"features": 4, "slots": 3} for name in ("memn2n", "kv_memory")},
    **{name: {"features": 4, "frames": 3} for name in ("mqn", "rmqn", "frmqn")},
}
R2D2 = memrl_jax.presets["r2d2"].replace(
    environment="TMaze",
    environments=2,
    rollout_length=4,
    encoder=(8,),
    window=8,
    burn_in=4,
    batch_size=4,
    capacity=80,
    target_period=2,
)
AGENTS = {"dqn": SMALL.replace(window=1), "drqn": SMALL, "r2d2": R2D2}


def agent_of(name: str, agent: str) -> tuple[Any, Segment]:
    """Make an agent with this memory, and what it sees at every rollout."""
    config = AGENTS[agent].replace(memory=name, memory_args=SMALLEST.get(name, {"features": 4}))
    made = make_agent(config, make_environment(config))
    return made, random_segment(config, made.initial_memory(config.environments))


# R2D2 unrolls stored memories over a burn-in, then over what it learns from. Windows that begin
# with an empty memory are unrolled like the latter: two memories stand for all.
PAIRS = [(name, "r2d2") for name in MEMORIES]
PAIRS += [(name, agent) for agent in ("drqn", "dqn") for name in ("none", "gru")]


@pytest.mark.parametrize("name, agent", PAIRS)
def test_it_trains_inside_every_agent(name: str, agent: str) -> None:
    made, segment = agent_of(name, agent)

    @jax.jit
    def five_updates(key: Any) -> Any:
        """With a full replay memory."""
        init_key, learn_key = jax.random.split(key)
        begun = made.init(init_key, jax.tree.map(lambda x: x[0], segment.timestep))
        full, _ = jax.lax.scan(lambda s, _: (made.observe(s, segment), None), begun, length=20)
        keys = jax.random.split(learn_key, 5)
        end, metrics = jax.lax.scan(lambda s, key: made.learn(key, s, segment), full, keys)
        return begun.learner.params, end.learner.params, metrics

    before, after, metrics = five_updates(jax.random.key(0))
    assert np.all(np.isfinite(metrics["loss_sum"]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    learned = jax.tree.map(lambda x, y: bool(np.any(x != y)), before, after)
    assert all(jax.tree.leaves((learned["encoder"], learned["head"])))
    # Windows of one action begin and end with an empty memory: nothing is read from it.
    kept = all if agent != "dqn" else any
    assert kept(jax.tree.leaves(learned["memory"])) or name == "none", learned


def test_an_agent_solves_memory_chain_with_one_of_them() -> None:
    """The short form of `benchmarks.results memories`: one memory, fewer steps, two seeds."""
    runs = agents.memories().runs
    config = runs["lru"].replace(total_steps=10_000)
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = jax.jit(jax.vmap(memrl_jax.make_train(config)))(keys)
    trainer, _ = memrl_jax.build.make(config)
    evaluate = jax.jit(jax.vmap(lambda key, state: trainer.evaluate(key, state.agent, 50)))
    assert np.all(evaluate(keys, state).total.mean(axis=1) >= 0.95)
    assert set(runs) == set(MEMORIES)
