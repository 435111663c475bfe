"""Stacks of frames against plain loops: in environments, and in windows drawn from replay."""

from collections import deque
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax import frames, tree
from memrl_jax.environments import ENVIRONMENTS, batch, frame_stack
from memrl_jax.replay import REPLAYS
from memrl_jax.rollout import initial, rollout
from memrl_jax.spaces import Continuous, Discrete, dtype, over
from memrl_jax.types import Environment, Segment, Spec, TimeStep

B = 3
FRAMES = 3


def noisy():
    """Episodes of 1 to 5 steps of random pictures, masks, small numbers and the steps left."""

    def seen(key, left, action, start):
        image = jax.random.bits(key, (2, 2, 1), jnp.uint8)
        delta = jax.lax.bitcast_convert_type(image[0, 0], jnp.int8)
        observation = {"image": image, "mask": image[1, :, 0] > 99, "delta": delta}
        observation["left"] = left
        return left, TimeStep(observation, action, jnp.float32(0), jnp.float32(1), start, left == 0)

    def reset(key):
        length_key, key = jax.random.split(key)
        left = jax.random.randint(length_key, (), 1, 6)
        return seen(key, left, jnp.int32(0), jnp.bool_(True))

    def step(key, left, action):
        first, later = reset(key), seen(key, left - 1, action, jnp.bool_(False))
        return tree.where(left == 0, first, later)

    observations = {
        "image": Continuous((2, 2, 1), jnp.dtype(jnp.uint8), 0, 255),
        "mask": Continuous((2,), jnp.dtype(bool), np.zeros(2, bool), np.ones(2, bool)),
        "delta": Continuous((1,), jnp.dtype(jnp.int8), np.array([-128]), np.array([127])),
        "left": Discrete(6),
    }
    return Environment(reset, step, Spec(observations, Discrete(4)), horizon=5)


MAKE = {"noisy": noisy, "TMaze": lambda: ENVIRONMENTS["TMaze"](corridor=3)}


def policy(key, memory, timestep):
    """Act at random, whatever is seen; the memory tells the environment and counts its steps."""
    action = jax.random.randint(key, (B,), 0, 4)
    return memory + 1, action, {"time": memory}


@cache
def emitted(name, stack):
    """One long segment of an environment, as it is or with a stack of frames."""
    env = MAKE[name]()
    env = batch(frame_stack(env, FRAMES) if stack else env)

    @jax.jit
    def run(key):
        actor = initial(env, jnp.arange(B) * 1000, key, B)
        return rollout(env, policy, actor, jax.random.key(1), 96)[1]

    return jax.device_get(run(jax.random.key(0)))


def stacked(observation, start, count):
    """Stack frames [T, ...] by hand."""
    held: deque = deque(maxlen=count)
    out = []
    for frame, begins in zip(observation, start, strict=True):
        held.extend([frame] * count if begins or not held else [frame])
        out.append(np.concatenate(held, axis=-1))
    return np.stack(out)


def by_hand(observations, starts, count):
    """Stack frames [T, B, ...] of several environments."""

    def leaf(x):
        x = x[..., None] if x.ndim == 2 else x  # frames without axes get one
        each = [stacked(x[:, e], starts[:, e], count) for e in range(x.shape[1])]
        return np.stack(each, axis=1)

    return jax.tree.map(leaf, observations)


def assert_same_bits(ours, theirs):
    def bits(x):
        return x.dtype.name, x.shape, np.asarray(x).tobytes()

    assert jax.tree.map(bits, ours) == jax.tree.map(bits, theirs)


def random_frames(steps):
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(steps, B, 3)).astype(np.float32),
        "b": rng.integers(0, 256, (steps, B, 2, 1), np.uint8),
        "c": rng.integers(-9, 9, (steps, B, 1, 2), np.int8),
        "d": rng.random((steps, B, 4)) < 0.5,
    }, rng.random((steps, B)) < 0.2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_stacks_are_those_of_a_loop(count):
    frame, start = random_frames(40)
    start[0] = True
    ours = jax.jit(frames.stack, static_argnums=2)(frame, start, count)
    assert_same_bits(jax.device_get(ours), by_hand(frame, start, count))


def test_stacks_without_their_past_are_right_from_a_start_or_when_full():
    frame, start = random_frames(60)
    whole = by_hand(frame, start, 4)
    stack = jax.jit(partial(frames.stack, frames=4))
    for begin in range(50):
        part = slice(begin, begin + 10)
        ours = stack(jax.tree.map(lambda x, part=part: x[part], frame), start[part])
        known = np.cumsum(start[part], axis=0) > 0
        known[3:] = True
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(np.asarray(x)[known], y[part][known])


def test_the_newest_frame_is_the_one_pushed_and_the_oldest_goes():
    frame, _ = random_frames(4)
    first, *later = (jax.tree.map(lambda x, t=t: x[t], frame) for t in range(4))
    stack = frames.repeat(first, 3)
    for x in later[:2]:
        stack = frames.push(stack, x)
        assert_same_bits(frames.newest(stack, 3), x)
    expected = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), first, *later[:2])
    assert_same_bits(stack, expected)
    last = frames.push(stack, later[2])
    assert_same_bits(last, jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *later))


@pytest.mark.parametrize("name", MAKE)
def test_environments_stack_what_they_would_show(name):
    plain, ours = emitted(name, stack=False), emitted(name, stack=True)
    start = plain.timestep.start
    assert (start.sum(axis=0) >= 5).all()
    stack = by_hand(plain.timestep.observation, start, FRAMES)
    assert_same_bits(ours, plain._replace(timestep=plain.timestep._replace(observation=stack)))


@pytest.mark.parametrize("name", MAKE)
def test_observations_are_what_the_environment_declares(name):
    env = frame_stack(MAKE[name](), 3)
    _, timestep = jax.eval_shape(env.reset, jax.random.key(0))

    def check(space, x):
        assert (space.shape, dtype(space)) == (x.shape, x.dtype)
        for bound in (space.low, space.high) if isinstance(space, Continuous) else ():
            assert np.broadcast_shapes(np.shape(bound), space.shape) == space.shape

    over(check, env.spec.observations, timestep.observation)


def test_bounds_are_repeated_like_frames():
    space = frame_stack(MAKE["TMaze"](), 3).spec.observations
    np.testing.assert_array_equal(space.low, [-1, 0] * 3)
    np.testing.assert_array_equal(space.high, [1, 1] * 3)


def test_numbers_without_axes_are_stacked_side_by_side():
    spaces = {"a": Discrete(7), "b": Continuous((), jnp.dtype("float32"), 0, 1)}
    env = frame_stack(noisy()._replace(spec=Spec(spaces, Discrete(4))), 3)
    assert env.spec.observations == {
        "a": Discrete(7, (3,)),
        "b": Continuous((3,), jnp.dtype("float32"), 0, 1),
    }


@pytest.mark.parametrize(
    ("space", "count", "message"),
    [
        (Continuous((2,), "float32", 0, 1), 0, "^frames: 0 is below 1$"),
        (Continuous((2,), "float32", 0, 1), 2.0, "^frames: 2.0 is not a whole number$"),
    ],
    ids=str,
)
def test_what_cannot_be_stacked_is_refused(space, count, message):
    spaces = {"a": Continuous((1,), "int8", 0, 1), "b": space}
    env = noisy()._replace(spec=Spec(spaces, Discrete(4)))
    with pytest.raises(ValueError, match=message):
        frame_stack(env, count)


class Case(NamedTuple):
    segments: int
    period: int
    length: int
    stride: int


def cut(whole, begin, length):
    """Return a segment of a longer one."""
    several = partial(jax.tree.map, lambda x: x[begin : begin + length])
    timestep = jax.tree.map(lambda x: x[begin : begin + length + 1], whole.timestep)
    return Segment((), timestep, several(whole.action), several(whole.extras))


@pytest.mark.parametrize("replay_name", REPLAYS)
@pytest.mark.parametrize(
    "name, case",
    [
        ("noisy", Case(9, 1, 1, 1)),  # transitions
        ("noisy", Case(4, 4, 6, 1)),
        ("noisy", Case(3, 6, 3, 2)),
        ("TMaze", Case(5, 3, 4, 3)),  # from stored memories
    ],
    ids=str,
)
def test_windows_carry_the_stacks_that_the_environment_emitted(replay_name, name, case):
    replay = REPLAYS[replay_name](**case._asdict(), batch_size=64, frames=FRAMES)
    whole = emitted(name, stack=True)
    state = replay.init(jax.tree.map(lambda x: jnp.asarray(x[0]), whole._replace(memory=())))
    add, sample = jax.jit(replay.add), jax.jit(replay.sample)
    for number in range(96 // case.period):
        state = add(state, cut(whole, number * case.period, case.period))
        if number + 1 >= replay.warmup:
            drawn = jax.device_get(sample(jax.random.key(number), state))
            check_windows(case, whole, drawn.segment)


def check_windows(case, whole, window):
    environment, time = divmod(window.extras["time"][0], 1000)
    row = time + np.arange(case.length + 1)[:, None], environment
    emitted_there = jax.tree.map(lambda x: x[row], whole.timestep)
    if case.stride != case.period or case.period == 1:
        emitted_there.start[0] = True
    assert_same_bits(window.timestep, emitted_there)
    assert_same_bits(window.action, emitted_there.action[1:])


@pytest.mark.parametrize("replay_name", REPLAYS)
@pytest.mark.parametrize("shape, dtype", [((84, 84, 1), "uint8"), ((5, 8), "bool"), ((3,), "int8")])
def test_one_frame_is_stored_in_its_own_bytes(replay_name, shape, dtype):
    z = jnp.zeros(2)
    stack = jnp.zeros((2, *shape[:-1], 4 * shape[-1]), dtype)
    timestep = TimeStep(stack, z.astype(jnp.int32), z, z, z > 0, z > 0)
    replay = REPLAYS[replay_name](segments=50, period=2, length=1, batch_size=1, frames=4)
    state = jax.eval_shape(replay.init, Segment((), timestep, timestep.action, ()))
    record = state.record if replay_name == "uniform" else state.ring.record
    others = 3 * 4 + 2 + 3  # of a timestep, and padding
    assert tree.nbytes(record) / (50 * 2 * 2) <= np.zeros(shape, dtype).nbytes + others
    window = jax.eval_shape(replay.sample, jax.random.key(0), state).segment
    assert window.timestep.observation.shape == (2, 1, *stack.shape[1:])
    assert window.timestep.observation.dtype == dtype
