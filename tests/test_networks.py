"""Networks of timesteps: what they see, what they remember, what they say."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks.agents import tmaze_in
from memrl_jax.memory import gru, none
from memrl_jax.networks import (
    MLP,
    ActorCriticHead,
    CriticHead,
    Encoder,
    PolicyHead,
    QHead,
    ValueHead,
    encoder,
    features,
    layers,
    recurrent,
)
from memrl_jax.networks.layers import shifted_products
from memrl_jax.settings import BodyConfig, LayersConfig
from memrl_jax.spaces import Continuous, Discrete
from memrl_jax.types import Network, Spec, TimeStep

T, B, ACTIONS = 5, 3, 4
VECTOR = Continuous((2,), jnp.float32, -1, 1)
IMAGE = Continuous((6, 5, 2), jnp.uint8, 0, 255)


def steps(spec: Any, *batch: int) -> TimeStep:
    """Draw timesteps with observations like `spec`, and a start now and then."""
    rng = np.random.default_rng(0)

    def draw(x: Any) -> Any:
        if isinstance(x, Discrete):
            return rng.integers(0, x.n, batch)
        if x.dtype == jnp.uint8:
            return rng.integers(0, 256, (*batch, *x.shape)).astype(x.dtype)
        return rng.normal(size=(*batch, *x.shape)).astype(x.dtype)

    observation = jax.tree.map(draw, spec, is_leaf=lambda x: isinstance(x, Discrete | Continuous))
    reward = rng.normal(size=batch).astype(np.float32)
    start = rng.uniform(size=batch) < 0.3
    timestep = (observation, draw(Discrete(ACTIONS)), reward, np.ones_like(reward), start, ~start)
    return TimeStep(*jax.tree.map(jnp.asarray, timestep))


def filled(init: Any, *args: Any) -> Any:
    """Draw parameters of the right shapes, biases too; initializers take long to compile."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree.map(lambda p: rng.normal(scale=0.5, size=p.shape).astype(p.dtype), shapes)


def apply(module: nn.Module, params: Any, *args: Any) -> Any:
    return module.apply(params, *args)


def encode(spec: Any, timestep: TimeStep, **options: Any) -> Any:
    """Encode with random parameters."""
    encoder = Encoder(spec, Discrete(ACTIONS), **options)
    return apply(encoder, filled(encoder.init, timestep), timestep)


@cache
def network(memory: str) -> tuple[Network, Any]:
    """Return a small network, compiled, with its parameters."""
    encoder = Encoder(VECTOR, Discrete(ACTIONS), (7,), previous_action=True, previous_reward=True)
    made = recurrent(encoder, {"gru": gru(6), "none": none()}[memory], QHead(ACTIONS, (6,)))
    made = Network(jax.jit(made.init), made.initial_state, jax.jit(made.step), jax.jit(made.unroll))
    return made, filled(made.init, steps(VECTOR, B))


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_unroll_is_repeated_step(memory: str) -> None:
    made, params = network(memory)
    timesteps, state = steps(VECTOR, T, B), made.initial_state(B)
    whole, outputs = made.unroll(params, state, timesteps)
    assert outputs.shape == (T, B, ACTIONS) and outputs.dtype == jnp.float32
    for t in range(T):
        state, output = made.step(params, state, jax.tree.map(lambda x, t=t: x[t], timesteps))
        np.testing.assert_allclose(output, outputs[t], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), state, whole)


def test_environments_of_a_batch_do_not_meet() -> None:
    made, params = network("gru")
    timesteps = steps(VECTOR, T, B)
    changed = timesteps._replace(reward=timesteps.reward.at[:, 1].add(1))
    first, second = (made.unroll(params, made.initial_state(B), x)[1] for x in (timesteps, changed))
    np.testing.assert_array_equal(first[:, ::2], second[:, ::2])
    assert np.any(first[:, 1] != second[:, 1])


def test_a_start_forgets_and_the_past_matters_otherwise() -> None:
    made, params = network("gru")
    timesteps = steps(VECTOR, T, B)
    at = np.arange(T)[:, None] == 2
    state = made.initial_state(B)
    busy = jax.tree.map(lambda x: x + 1, state)
    for start, forgets in ((np.broadcast_to(at, (T, B)), True), (np.zeros((T, B), bool), False)):
        moment = timesteps._replace(start=jnp.asarray(start))
        _, ours = made.unroll(params, state, moment)
        _, theirs = made.unroll(params, busy, moment)
        assert np.any(ours[:2] != theirs[:2])
        assert np.array_equal(ours[2:], theirs[2:]) == forgets


def test_initial_states_are_those_of_the_memory() -> None:
    made, _ = network("gru")
    state = made.initial_state(B)
    np.testing.assert_array_equal(state, np.zeros((B, 6), np.float32), strict=True)
    assert network("none")[0].initial_state(B) == ()


def test_parameters_differ_between_keys() -> None:
    made, _ = network("gru")
    params, again, other = (made.init(jax.random.key(k), steps(VECTOR, B)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    kernels = [x for x in jax.tree.leaves((params, other)) if x.ndim == 2]
    assert len({x.tobytes() for x in map(np.asarray, kernels)}) == len(kernels)
    assert set(params) == {"encoder", "memory", "head"}


def test_whole_numbers_are_one_hot() -> None:
    timestep = steps(Discrete(5), T, B)
    features = encode(Discrete(5), timestep)
    expected = np.eye(5, dtype=np.float32)[timestep.observation]
    np.testing.assert_array_equal(features, expected, strict=True)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_vectors_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    spec = Continuous(shape, jnp.float32, -1, 1)
    timestep = steps(spec, T, B)
    features = encode(spec, timestep)
    np.testing.assert_array_equal(features, timestep.observation.reshape(T, B, -1), strict=True)


INFINITE = float("inf")
INTEGERS = [
    ("uint8", 0, 255, [0, 51, 255], [0, 0.2, 1]),
    ("uint8", 0, 1, [0, 1], [0, 1]),
    ("uint8", -INFINITE, INFINITE, [0, 51, 255], [0, 0.2, 1]),
    ("uint8", 0, 1000, [0, 51, 255], [0, 0.2, 1]),
    ("uint8", 10, 20, [10, 15, 20], [0, 0.5, 1]),
    ("int8", -1, 1, [-1, 0, 1], [-1, 0, 1]),
    ("int8", -128, 127, [-128, 0, 127], [-1, 0, 127 / 128]),
    ("int8", -INFINITE, INFINITE, [-128, 3, 127], [-128, 3, 127]),
    ("int16", -1000, 1000, [-1000, 500], [-1, 0.5]),
    ("uint16", 0, 2**16 - 1, [0, 2**16 - 1], [0, 1]),
    ("int16", -INFINITE, INFINITE, [-7, 7], [-7, 7]),
    ("int32", 0, 7, [0, 7], [0, 1]),
    ("int32", 10**9, 10**9 + 4, [10**9, 10**9 + 1, 10**9 + 4], [0, 0.25, 1]),
    ("int32", -INFINITE, INFINITE, [-3, 2**24], [-3, 2**24]),
    ("int32", -(2**31), 2**31 - 1, [-3, 2**24], [-3, 2**24]),
    ("int32", 0, 2**31 - 1, [0, 3], [0, 3]),
    ("int32", 0, INFINITE, [0, 3], [0, 3]),
    ("uint32", 0, 7, [0, 7], [0, 1]),
    ("uint32", 0, 2**32 - 1, [0, 3], [0, 3]),
    ("int32", 3, 3, [3], [0]),
    ("int32", -4, 0, [-4, -3, 0], [0, 0.25, 1]),
    ("int32", -0.5, 4.5, [0, 1, 4], [0, 0.25, 1]),
    ("bool", 0, 1, [0, 1], [0, 1]),
    ("bool", -INFINITE, INFINITE, [0, 1], [0, 1]),
    ("bool", False, True, [0, 1], [0, 1]),
]


@pytest.mark.parametrize("dtype, low, high, given, expected", INTEGERS)
def test_integers_are_scaled_by_their_declared_bounds(
    dtype: str, low: float, high: float, given: list[int], expected: list[float]
) -> None:
    x = jnp.asarray(np.array(given, dtype))[None]
    seen = features(Continuous((len(given),), x.dtype, low, high), x, 1)
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)


def test_bounds_may_differ_from_element_to_element() -> None:
    low, high = np.array([[0, -1], [5, 3]]), np.array([[255, 1], [5, 7]])
    x = jnp.array([[51, 0], [5, 4]], jnp.int16)[None]
    expected = [[0.2, 0, 0, 0.25]]
    space = Continuous((2, 2), jnp.int16, low, high)
    np.testing.assert_allclose(features(space, x, 1), expected, rtol=1e-6)
    traced = jax.jit(lambda low: features(space._replace(low=low), x, 1))(low)
    np.testing.assert_allclose(traced, expected, rtol=1e-6)


def test_a_maze_looks_the_same_in_any_integers() -> None:
    """What `benchmarks.results tmaze-bytes` trains on."""

    def seen(dtype: str, low: int, high: int) -> jax.Array:
        env = tmaze_in(dtype, low, high)
        observation = env.reset(jax.random.key(3))[1].observation
        return features(env.spec.observations, observation[None], 1)

    for dtype, high in [("uint8", 1), ("uint8", 255), ("int32", 7)]:
        np.testing.assert_array_equal(seen(dtype, 0, high), seen("float32", 0, 1))
    np.testing.assert_array_equal(seen("int8", -1, 1), seen("float32", -1, 1))
    assert np.count_nonzero(seen("int8", -1, 1)) == np.count_nonzero(seen("uint8", 0, 255)) == 1


@pytest.mark.parametrize("batch", [(B,), (T, B)])
def test_images_go_through_a_convolution(batch: tuple[int, ...]) -> None:
    timestep = steps(IMAGE, *batch)
    encoder = Encoder(IMAGE, Discrete(ACTIONS))
    params = filled(encoder.init, timestep)
    features = apply(encoder, params, timestep)
    images = timestep.observation.reshape(-1, *IMAGE.shape) / 255
    by_hand = nn.relu(apply(nn.Conv(16, (3, 3)), {"params": params["params"]["Conv_0"]}, images))
    np.testing.assert_allclose(features, by_hand.reshape(*batch, -1), rtol=1e-5, atol=1e-6)
    assert features.shape[-1] == 6 * 5 * 16


def convolved(x: Any, kernel: Any, stride: int = 1, padding: int = 1) -> Any:
    return shifted_products(x, kernel, (stride, stride), ((padding, padding),) * 2)


def summed(x: Any, kernel: Any) -> Any:
    return jnp.sum(jnp.sin(convolved(x, kernel)))


def reference(x: Any, kernel: Any, stride: int, padding: int) -> Any:
    layout, around = ("NHWC", "HWIO", "NHWC"), ((padding, padding),) * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), around, dimension_numbers=layout
    )


def test_large_images_are_convolved_in_groups_as_all_at_once(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(7, 9, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)
    found = []
    for whole in (2**31, 0):
        monkeypatch.setattr(layers, "WHOLE", whole)
        monkeypatch.setattr(layers, "GROUP", 3 * 9 * x[0].nbytes)  # 3 images, 3 more, and 1
        given = jax.jit(lambda *args: (convolved(*args), jax.grad(summed, (0, 1))(*args)))
        found.append(jax.tree.leaves(given(x, kernel)))
    np.testing.assert_allclose(found[0][0], reference(x, kernel, 1, 1), rtol=1e-5, atol=1e-5)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size, stride, padding", [(8, 4, 0), (4, 2, 1), (3, 1, 0), (2, 3, 2)])
def test_products_of_shifted_images_are_convolutions(size: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 14, 17, 2)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 2, 3)), jnp.float32)
    expected = reference(x, kernel, stride, padding)
    np.testing.assert_allclose(
        convolved(x, kernel, stride, padding), expected, rtol=1e-4, atol=1e-4
    )


def memory(program: Any) -> int:
    return program.memory_analysis().temp_size_in_bytes


def test_copies_of_large_images_are_not_held(monkeypatch: Any) -> None:
    x = jax.ShapeDtypeStruct((32, 84, 84, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 16), jnp.float32)
    held = []
    for whole in (layers.WHOLE, 2**31):
        monkeypatch.setattr(layers, "WHOLE", whole)
        # A program of its own each time: `summed` itself would be traced only once.
        program = jax.jit(jax.grad(lambda x, kernel: summed(x, kernel), 1))
        held.append(memory(program.lower(x, kernel).compile()))
    copies = 9 * x.size * 4
    assert held[1] > copies
    assert held[0] < held[1] - 0.8 * copies


def see(spec: Any, **settings: Any) -> Encoder:
    """Make an encoder without dense layers, as the settings say."""
    return encoder(BodyConfig(encoder=()).replace(**settings), Spec(spec, Discrete(ACTIONS)))


def shapes(module: Encoder, spec: Any) -> tuple[Any, tuple[int, ...]]:
    """Return the shapes of the kernels, by layer, and of the features of B timesteps."""
    seen, params = jax.eval_shape(module.init_with_output, jax.random.key(0), steps(spec, B))
    kernels = {name: x["kernel"].shape for name, x in params.get("params", {}).items()}
    return kernels, seen.shape


def test_nature_is_as_published() -> None:
    spec = Continuous((84, 84, 4), jnp.uint8, 0, 255)
    kernels, seen = shapes(see(spec, convolutions="nature"), spec)
    assert [*kernels.values()] == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)]
    assert seen == (B, 3136)


def test_convolutions_may_be_listed() -> None:
    spec = Continuous((32, 32, 3), jnp.uint8, 0, 255)
    kernels, seen = shapes(see(spec, convolutions=[[32, 4, 2, 1], [64, 4, 2, 1]]), spec)
    assert [*kernels.values()] == [(4, 4, 3, 32), (4, 4, 32, 64)]
    assert seen == (B, 8 * 8 * 64)


def test_a_declared_axis_has_the_channels() -> None:
    timestep = steps(IMAGE, B)
    first = Continuous((2, 6, 5), jnp.uint8, 0, 255)
    turned = timestep._replace(observation=jnp.moveaxis(timestep.observation, -1, 1))
    params = filled(see(IMAGE).init, timestep)
    expected = apply(see(IMAGE), params, timestep)
    for axis in (0, -3):
        np.testing.assert_array_equal(apply(see(first, channels=axis), params, turned), expected)


def test_three_axes_may_be_a_vector() -> None:
    timestep = steps(IMAGE, T, B)
    seen = apply(see(IMAGE, channels=None), {}, timestep)
    np.testing.assert_allclose(seen, timestep.observation.reshape(T, B, -1) / 255, rtol=1e-6)


REFUSED = [
    (IMAGE, {"convolutions": "natur"}, "convolutions: 'natur' is unknown; did you mean 'nature'"),
    (IMAGE, {"convolutions": ()}, "convolutions: () has no layers"),
    (IMAGE, {"convolutions": ((8, 3, 0, 0),)}, "convolutions: 0 is below 1"),
    (IMAGE, {"convolutions": ((8, 3, 1, -1),)}, "convolutions: -1 is below 0"),
    (VECTOR, {"convolutions": "nature"}, "convolutions: 'nature', but there is no image"),
    (IMAGE, {"convolutions": "nature", "channels": None}, "convolutions: 'nature', but there is"),
    (VECTOR, {"channels": 0}, "channels: 0, but there is no image"),
    (IMAGE, {"channels": 3}, "channels: 3 is above 2"),
    (IMAGE, {"encoder": (0,)}, "encoder: 0 is below 1"),
]


@pytest.mark.parametrize("spec, settings, message", REFUSED)
def test_what_would_be_ignored_is_refused(spec: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message.replace('(', '[(]').replace(')', '[)]')}"):
        see(spec, **settings)


def test_kernels_must_fit_in_the_image() -> None:
    with pytest.raises(ValueError, match="kernel of 8 does not fit in an image of 6 x 5"):
        shapes(see(IMAGE, convolutions="nature"), IMAGE)


def test_trees_of_observations_are_put_side_by_side() -> None:
    spec = {"where": Discrete(3), "look": {"near": VECTOR, "far": IMAGE}, "on": (VECTOR,)}
    timestep = steps(spec, T, B)
    features = encode(spec, timestep)
    seen = timestep.observation
    assert features.shape == (T, B, 6 * 5 * 16 + 2 + 2 + 3)
    np.testing.assert_array_equal(features[..., -7:-5], seen["look"]["near"])
    np.testing.assert_array_equal(features[..., -5:-3], seen["on"][0])
    np.testing.assert_array_equal(features[..., -3:], np.eye(3)[seen["where"]])


def test_two_images_have_two_convolutions() -> None:
    spec = {"left": IMAGE, "right": IMAGE}
    encoder = Encoder(spec, Discrete(ACTIONS))
    params = filled(encoder.init, steps(spec, B))
    assert sorted(params["params"]) == ["Conv_0", "Conv_1"]


NORMALISED = LayersConfig(layer_norm=True)
ORTHOGONAL = LayersConfig(orthogonal=True)


def test_hidden_layers_are_normalised_before_the_relu() -> None:
    module = see(IMAGE, encoder=(8, 6), layer_norm=True)
    timestep = steps(IMAGE, B)
    params = jax.tree.map(jnp.asarray, filled(module.init, timestep))
    tower = dict(params["params"]["MLP_0"])
    assert sorted(tower) == ["Dense_0", "Dense_1", "LayerNorm_0", "LayerNorm_1"]
    assert sorted(params["params"]) == ["Conv_0", "LayerNorm_0", "MLP_0"]
    # Features that all grow tenfold are the same features.
    last = {name: 10 * x for name, x in tower["Dense_1"].items()}
    louder = params["params"] | {"MLP_0": tower | {"Dense_1": last}}
    expected = apply(module, params, timestep)
    found = apply(module, {"params": louder}, timestep)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    x = np.asarray(steps(VECTOR, B).observation)
    by_hand = jax.tree.map(np.asarray, filled(MLP((6,), NORMALISED).init, x)["params"])
    dense, norm = by_hand["Dense_0"], by_hand["LayerNorm_0"]
    y = x @ dense["kernel"] + dense["bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = np.maximum(y * norm["scale"] + norm["bias"], 0)
    np.testing.assert_allclose(
        apply(MLP((6,), NORMALISED), {"params": by_hand}, x), y, rtol=1e-4, atol=1e-5
    )


HEADS = {
    "q": (QHead(ACTIONS, (6,), layers=ORTHOGONAL), 1.0),
    "policy": (PolicyHead(3, (6,), ORTHOGONAL), 0.01),
    "value": (ValueHead((6,), ORTHOGONAL), 1.0),
    "critic": (CriticHead((6,), ORTHOGONAL), 1.0),
}


def gram(kernel: Any) -> Any:
    """Return the products of a kernel's columns, or of its rows where these are fewer."""
    kernel = np.asarray(kernel).reshape(-1, kernel.shape[-1])
    return kernel.T @ kernel if len(kernel) >= kernel.shape[1] else kernel @ kernel.T


@pytest.mark.parametrize("name", HEADS)
def test_orthogonal_kernels_have_the_published_scales(name: str) -> None:
    head, scale = HEADS[name]
    action = (jnp.ones((B, 2)),) if name == "critic" else ()
    params = head.init(jax.random.key(0), jnp.ones((B, 6)), *action)["params"]
    params = next(iter(params.values())) if name == "critic" else params  # a value of both
    hidden = gram(params["MLP_0"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(hidden, 2 * np.eye(len(hidden)), atol=1e-5)
    output = gram(params["Dense_0"]["kernel"])
    np.testing.assert_allclose(output, scale**2 * np.eye(len(output)), atol=1e-5 * scale**2)
    assert not np.any(params["Dense_0"]["bias"])


def test_the_encoder_is_orthogonal_where_its_layers_are() -> None:
    module = see(IMAGE, encoder=(8,), orthogonal=True)
    params = module.init(jax.random.key(0), steps(IMAGE, B))["params"]
    for layer in (params["Conv_0"], params["MLP_0"]["Dense_0"]):
        found = gram(layer["kernel"])
        np.testing.assert_allclose(found, 2 * np.eye(len(found)), atol=1e-5)


def test_previous_actions_are_one_hot_and_none_at_a_start() -> None:
    timestep = steps(VECTOR, T, B)
    features = encode(VECTOR, timestep, previous_action=True)
    expected = np.eye(ACTIONS)[timestep.action] * ~timestep.start[..., None]
    assert timestep.start.any() and not timestep.start.all()
    np.testing.assert_array_equal(features[..., 2:], expected)


def test_previous_actions_may_be_continuous() -> None:
    timestep = steps(VECTOR, T, B)
    timestep = timestep._replace(action=timestep.observation + 1)
    encoder = Encoder(VECTOR, VECTOR, previous_action=True)
    features = apply(encoder, {}, timestep)
    expected = timestep.action * ~timestep.start[..., None]
    np.testing.assert_array_equal(features[..., 2:], expected)


def test_previous_actions_may_have_several_parts() -> None:
    timestep = steps(VECTOR, T, B)
    actions = {"move": (Discrete(2), Discrete(ACTIONS)), "force": VECTOR}
    action = {"move": (timestep.action % 2, timestep.action), "force": timestep.observation}
    module = Encoder(VECTOR, actions, previous_action=True)
    seen = apply(module, {}, timestep._replace(action=action))
    parts = [timestep.observation, np.eye(2)[timestep.action % 2], np.eye(ACTIONS)[timestep.action]]
    expected = np.concatenate(parts, axis=-1) * ~timestep.start[..., None]
    np.testing.assert_array_equal(seen[..., 2:], expected)
    with pytest.raises(ValueError, match=r"^action: parts .*are not the declared"):
        apply(module, {}, timestep)


def test_previous_rewards_are_used() -> None:
    timestep = steps(VECTOR, T, B)
    features = encode(VECTOR, timestep, previous_reward=True)
    np.testing.assert_array_equal(features[..., 2], timestep.reward * ~timestep.start)
    both = encode(VECTOR, timestep, previous_action=True, previous_reward=True)
    assert both.shape == (T, B, 2 + ACTIONS + 1)


def test_widths_are_dense_layers() -> None:
    features = encode(VECTOR, steps(VECTOR, B), widths=(8, 6))
    assert features.shape == (B, 6) and features.min() == 0 < features.max()


@pytest.mark.parametrize("widths", [(), (7, 5)])
def test_dueling_advantages_have_mean_zero(widths: tuple[int, ...]) -> None:
    head = QHead(ACTIONS, widths, dueling=True)
    x = np.random.default_rng(2).normal(size=(B, 6))
    params = filled(head.init, x)
    q = apply(head, params, x)
    layers = params["params"]
    (of_value,) = (k for k, v in layers.items() if "kernel" in v and v["kernel"].shape[-1] == 1)
    tower = {"params": layers.get(of_value.replace("Dense", "MLP"), {})}
    value = apply(nn.Dense(1), {"params": layers[of_value]}, apply(MLP(widths), tower, x))
    np.testing.assert_allclose(q.mean(axis=-1), value[:, 0], rtol=1e-5, atol=1e-6)
    assert q.shape == (B, ACTIONS) and q.std(axis=-1).min() > 0.01


def test_plain_values_are_those_of_the_last_layer() -> None:
    x = np.random.default_rng(2).normal(size=(B, 6))
    params = filled(QHead(ACTIONS).init, x)
    (layer,) = params["params"].values()
    by_hand = apply(nn.Dense(ACTIONS), {"params": layer}, x)
    np.testing.assert_array_equal(apply(QHead(ACTIONS), params, x), by_hand)


def test_observations_must_be_as_declared() -> None:
    with pytest.raises(ValueError, match=r"parts .*are not the declared"):
        encode({"a": VECTOR, "b": VECTOR}, steps({"a": VECTOR}, B))


def test_inputs_go_to_the_head() -> None:
    judge = recurrent(Encoder(VECTOR, VECTOR, (7,)), gru(6), CriticHead((5,)))
    timesteps = steps(VECTOR, T, B)
    action = (timesteps.observation, timesteps.reward)
    one = jax.tree.map(lambda x: x[0], (timesteps, action))
    params = filled(judge.init, *one)
    _, values = jax.jit(judge.unroll)(params, judge.initial_state(B), timesteps, action)
    assert values.shape == (T, B) and values.dtype == jnp.float32
    state = judge.initial_state(B)
    for t in range(T):
        now = jax.tree.map(lambda x, t=t: x[t], (timesteps, action))
        state, value = judge.step(params, state, *now)
        np.testing.assert_allclose(value, values[t], rtol=1e-5, atol=1e-5)
    _, other = judge.unroll(params, judge.initial_state(B), timesteps, (action[0] + 1, action[1]))
    assert np.all(other != values)


def test_actor_and_critic_share_the_memory_only() -> None:
    head = ActorCriticHead(3, (6,))
    x = np.random.default_rng(2).normal(size=(T, B, 6)).astype(np.float32)
    params = filled(head.init, x)
    parameters, value = apply(head, params, x)
    assert parameters.shape == (T, B, 3) and value.shape == (T, B)
    actor = {"params": params["params"]["PolicyHead_0"]}
    np.testing.assert_array_equal(parameters, apply(PolicyHead(3, (6,)), actor, x))
    critic = {"params": params["params"]["ValueHead_0"]}
    np.testing.assert_array_equal(value, apply(ValueHead((6,)), critic, x))
