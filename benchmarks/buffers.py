"""Replay memories alone: ours and those of other libraries, holding the same fields.

An iteration adds what 10 environments did in a period, draws a batch, and updates the priorities
of what was drawn. Nothing is learned. All memories are full before they are timed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import CPPRB, SB3
from benchmarks.timing import Program, compiled, loop
from memrl_jax import replay, tree
from memrl_jax.types import Array, Key, Segment, State, TimeStep

ENVIRONMENTS = 10
OBSERVATION = (4,)  # float32, as of CartPole
EXPONENT, IMPORTANCE = 0.6, 0.4
PRIORITIZED = "prioritized"


class Case(NamedTuple):
    """What a memory holds and how it is used."""

    replay: str  # uniform or prioritized
    rows: int  # timesteps, over all environments
    batch_size: int
    period: int = 1  # actions in every environment between two draws
    length: int = 1  # actions in a window
    stride: int = 1  # timesteps between the starts of two windows


class Memory(NamedTuple):
    """A replay memory of JAX arrays."""

    init: Callable[[], State]  # empty
    experience: TimeStep  # what an `add` takes
    add: Callable[[State, TimeStep], State]
    sample: Callable[[Key, State], Any]
    update: Callable[[State, Any, Array], State]  # state, sample, priority


def memrl(case: Case, **options: Any) -> Memory:
    """Make our memory; `options` go to its constructor."""
    if case.replay == PRIORITIZED:
        options = {"exponent": EXPONENT, "importance": IMPORTANCE, **options}
    ours = replay.REPLAYS[case.replay](
        segments=case.rows // ENVIRONMENTS // case.period,
        period=case.period,
        length=case.length,
        batch_size=case.batch_size,
        stride=case.stride,
        **options,
    )

    action = jnp.zeros(ENVIRONMENTS, jnp.int32)

    def segment(timestep: TimeStep) -> Segment:
        return Segment((), timestep, timestep.action[1:], ())

    return Memory(
        lambda: ours.init(Segment((), timesteps(ENVIRONMENTS), action, ())),
        timesteps(case.period + 1, ENVIRONMENTS),
        lambda state, timestep: ours.add(state, segment(timestep)),
        ours.sample,
        lambda state, sample, priority: ours.update(state, sample.index, priority)[0],
    )


def flashbax(case: Case) -> Memory:
    """Make flashbax's memory: a flat buffer for transitions, a trajectory buffer for windows."""
    import flashbax

    flat = case.length == 1
    prioritised = "prioritised_" if case.replay == PRIORITIZED else ""
    make = getattr(flashbax, f"make_{prioritised}{'flat' if flat else 'trajectory'}_buffer")
    options: dict[str, Any] = {"priority_exponent": EXPONENT, "device": jax.default_backend()}
    options = options if prioritised else {}
    if flat:
        options |= {"max_length": case.rows, "min_length": case.batch_size}
    else:
        options |= {
            "max_length_time_axis": case.rows // ENVIRONMENTS,
            "min_length_time_axis": case.length + 1,
            "sample_sequence_length": case.length + 1,
            "period": case.stride,
        }
    theirs = make(add_batch_size=ENVIRONMENTS, sample_batch_size=case.batch_size, **options)

    def update(state: State, sample: Any, priority: Array) -> State:
        return theirs.set_priorities(state, sample.indices, priority) if prioritised else state

    return Memory(
        lambda: theirs.init(tree.at(timesteps(1), 0)),
        timesteps(ENVIRONMENTS) if flat else timesteps(ENVIRONMENTS, case.period),
        theirs.add,
        lambda key, state: theirs.sample(state, key),
        update,
    )


def timesteps(*shape: int) -> TimeStep:
    """Make timesteps [*shape] whose observations differ."""
    observation = jnp.arange(np.prod((*shape, *OBSERVATION)), dtype=jnp.float32)
    return TimeStep(
        observation=observation.reshape(*shape, *OBSERVATION),
        action=jnp.ones(shape, jnp.int32),
        reward=jnp.ones(shape, jnp.float32),
        discount=jnp.ones(shape, jnp.float32),
        start=jnp.zeros(shape, bool),
        last=jnp.zeros(shape, bool),
    )


def program(name: str, case: Case, memory: Memory, seeds: int = 1) -> Program:
    """Fill a memory and prepare iterations of it, in a loop that is compiled whole.

    Several seeds are vmapped.
    """

    def full(experience: TimeStep) -> State:
        adds = case.rows // ENVIRONMENTS // case.period + 1
        return jax.lax.fori_loop(0, adds, lambda _, x: memory.add(x, experience), memory.init())

    def step(carry: Any) -> Any:
        key, state, experience, priority, _ = carry
        key, sample_key = jax.random.split(key)
        # New values in each iteration, or the work would be hoisted out of the loop.
        experience = experience._replace(reward=experience.reward + 1)
        priority = (priority + 0.618) % 1
        state = memory.add(state, experience)
        sample = memory.sample(sample_key, state)
        state = memory.update(state, sample, priority)
        return key, state, experience, priority, sample

    state = jax.jit(full)(memory.experience)
    priority = jnp.linspace(0, 1, case.batch_size, dtype=jnp.float32)
    sample = jax.jit(memory.sample)(jax.random.key(0), state)
    carry = (state, memory.experience, priority, sample)
    if seeds == 1:
        carry = (jax.random.key(0), *jax.tree.map(jnp.copy, carry))
        return compiled((name, case.rows, seeds), loop(step), carry)
    carry = jax.tree.map(lambda x: jnp.repeat(x[None], seeds, axis=0), carry)
    keys = jax.random.split(jax.random.key(0), seeds)
    return compiled((name, case.rows, seeds), loop(jax.vmap(step)), (keys, *carry))


def cpprb(case: Case) -> tuple[Program, int]:
    """Prepare cpprb's memory of transitions; also count the bytes of its arrays.

    Its trees are not counted, as it does not expose them.
    """
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    fields = {
        "obs": {"shape": OBSERVATION},
        "next_obs": {"shape": OBSERVATION},
        "act": {"dtype": np.int32},
        "rew": {},
        "discount": {},
        "start": {"dtype": bool},
        "last": {"dtype": bool},
    }
    prioritized = case.replay == PRIORITIZED
    if prioritized:
        buffer = PrioritizedReplayBuffer(case.rows, fields, alpha=EXPONENT)
    else:
        buffer = ReplayBuffer(case.rows, fields)

    def transitions(count: int) -> dict[str, np.ndarray]:
        t = jax.tree.map(np.asarray, timesteps(count))
        values = (t.observation, t.observation, t.action, t.reward, t.discount, t.start, t.last)
        return dict(zip(fields, values, strict=True))

    buffer.add(**transitions(case.rows))
    nbytes = sum(x.nbytes for x in buffer.get_all_transitions().values())
    new = transitions(ENVIRONMENTS)
    priority = np.linspace(0, 1, case.batch_size, dtype=np.float32)

    def advance(iterations: int) -> None:
        nonlocal priority
        for _ in range(iterations):
            buffer.add(**new)
            if prioritized:
                sample = buffer.sample(case.batch_size, IMPORTANCE)
                priority = (priority + np.float32(0.618)) % 1
                buffer.update_priorities(sample["indexes"], priority)
            else:
                buffer.sample(case.batch_size)

    return Program(CPPRB, case.rows, 1, None, advance, lambda: 0), nbytes


def stable_baselines3(case: Case) -> tuple[Program, int]:
    """Prepare Stable-Baselines3's uniform memory of transitions; also count its arrays' bytes."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    observations = spaces.Box(-np.inf, np.inf, OBSERVATION, np.float32)
    buffer = ReplayBuffer(
        case.rows, observations, spaces.Discrete(2), device="cpu", n_envs=ENVIRONMENTS
    )
    arrays = [x for x in vars(buffer).values() if isinstance(x, np.ndarray)]
    for x in arrays:
        x[:] = 1
    buffer.full = True
    t = jax.tree.map(np.asarray, timesteps(ENVIRONMENTS))
    infos: list[dict[str, Any]] = [{} for _ in range(ENVIRONMENTS)]
    new = (t.observation, t.observation, t.action, t.reward, t.last, infos)

    def advance(iterations: int) -> None:
        for _ in range(iterations):
            buffer.add(*new)
            buffer.sample(case.batch_size)

    nbytes = sum(x.nbytes for x in arrays)
    return Program(SB3, case.rows, 1, None, advance, lambda: 0), nbytes
