"""Distributions against numbers of distrax, and in double precision from their definition."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.distributions import categorical, clip, from_space, normal, product, tanh_normal
from memrl_jax.spaces import Continuous, Discrete

# Computed once with distrax 0.1.9 in double precision, from inputs that are exact in float32: a
# categorical of 5 [40, 5] with and without illegal actions, and a normal of 3 [40, 3] plain and
# squashed by tanh, both scaled to bounds.
GOLDEN = dict(np.load(Path(__file__).parent / "data" / "distributions.npz"))
BOX = Continuous((3,), np.float32, GOLDEN["normal/low"], GOLDEN["normal/high"])
MIDDLE, HALF = (BOX.high + BOX.low) / 2, (BOX.high - BOX.low) / 2
NORMAL = np.concatenate([GOLDEN["normal/mean"], GOLDEN["normal/log_std"]], axis=-1)
SEVERAL = (Discrete(3), {"a": Discrete(2), "b": Discrete(4)})
MASKS = (
    np.array([[1, 0, 1], [0, 1, 0]], bool),
    {"a": np.array([[0, 1], [1, 1]], bool), "b": np.array([[0, 0, 0, 1], [1, 1, 0, 1]], bool)},
)

pytestmark = pytest.mark.usefixtures("strict")


@pytest.fixture(scope="module")
def strict() -> Any:
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        yield


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("suffix", "masked"), [("", True), ("_of_all", False)])
def test_categorical_agrees_with_distrax(suffix: str, masked: bool) -> None:
    d, logits = categorical(5), GOLDEN["categorical/logits"]
    legal = jnp.asarray(GOLDEN["categorical/legal"]) if masked else ()
    log_prob = d.log_prob(logits, GOLDEN["categorical/action"], legal)
    assert_close(log_prob, GOLDEN[f"categorical/log_prob{suffix}"])
    assert_close(d.entropy(logits, legal), GOLDEN[f"categorical/entropy{suffix}"])
    if masked:
        np.testing.assert_array_equal(d.mode(logits, legal), GOLDEN["categorical/mode"])


def test_normal_agrees_with_distrax() -> None:
    d = normal(BOX)
    assert d.size == 6
    assert_close(d.log_prob(NORMAL, GOLDEN["normal/action"]), GOLDEN["normal/log_prob"])
    assert_close(d.entropy(NORMAL), GOLDEN["normal/entropy"])
    assert_close(d.mode(NORMAL), MIDDLE + HALF * GOLDEN["normal/mean"])


def test_squashed_normal_agrees_with_distrax() -> None:
    """Where float32 still tells u from an action."""
    clear = np.abs(GOLDEN["tanh/u"]).max(axis=-1) < 2.5
    assert clear.sum() >= 20
    ours = tanh_normal(BOX).log_prob(NORMAL, GOLDEN["tanh/action"])
    assert_close(ours[clear], GOLDEN["tanh/log_prob"][clear])


def log_density(z: Any) -> Any:
    """Return the logarithm of the standard normal density in double precision."""
    return -0.5 * np.float64(z) ** 2 - 0.5 * np.log(2 * np.pi)


def slow_squashed(mean: Any, log_std: Any, z: Any) -> tuple[Any, Any]:
    """Return the action of the noise z and its log-density, in double precision."""
    u = mean.astype(float) + np.exp(log_std.astype(float)) * z.astype(float)
    log_det = np.log(4.0) - 2 * np.logaddexp(u, -u)  # log(1 - tanh^2) = -2 log cosh
    log_prob = log_density(z) - log_std - log_det - np.log(HALF)
    return MIDDLE + HALF * np.tanh(u), log_prob.sum(axis=-1)


@pytest.mark.parametrize("size", [1, 30, 1e4])
def test_a_draw_of_a_squashed_normal_knows_its_density(size: float) -> None:
    """Also where tanh is 1 in float32, values and gradients are finite."""
    key, d = jax.random.key(1), tanh_normal(BOX)
    mean, log_std = np.float32(size) * GOLDEN["normal/mean"], GOLDEN["normal/log_std"]
    parameters = jnp.concatenate([mean, log_std], axis=-1)
    action, log_prob = d.sample_and_log_prob(key, parameters)
    slow_action, slow_log_prob = slow_squashed(
        mean, log_std, np.asarray(jax.random.normal(key, mean.shape))
    )
    assert_close(action, slow_action)
    assert_close(log_prob, slow_log_prob)
    np.testing.assert_array_equal(action, d.sample(key, parameters))
    action = np.asarray(action)
    assert np.all((action >= BOX.low) & (action <= BOX.high))

    def loss(parameters: Any) -> Any:
        action, log_prob = d.sample_and_log_prob(key, parameters)
        return jnp.sum(log_prob) + jnp.sum(action)

    assert np.all(np.isfinite(jax.grad(loss)(parameters)))


@pytest.mark.parametrize("mean", [0.0, -300.0])
@pytest.mark.parametrize("log_std", [-50.0, 0.0, 50.0])
def test_an_action_at_the_bounds_has_a_finite_density(mean: float, log_std: float) -> None:
    d = tanh_normal(BOX)
    parameters = jnp.array([mean] * 3 + [log_std] * 3)
    beyond = BOX.high + 1
    for action in (BOX.low, BOX.high, beyond, np.nextafter(BOX.high, BOX.low)):
        value, slopes = jax.value_and_grad(d.log_prob, argnums=(0, 1))(parameters, action)
        assert np.isfinite(value) and all(np.all(np.isfinite(x)) for x in slopes)
    np.testing.assert_array_equal(
        d.log_prob(parameters, beyond), d.log_prob(parameters, jnp.asarray(BOX.high))
    )


def test_an_action_at_a_bound_counts_as_the_nearest_inside() -> None:
    parameters = np.array([0.5] * 3 + [0.0] * 3, np.float32)
    u = np.arctanh(1 - 2.0**-24)
    _, slow = slow_squashed(parameters[:3], parameters[3:], np.full(3, u - 0.5))
    assert_close(tanh_normal(BOX).log_prob(parameters, BOX.high), slow)


@pytest.mark.parametrize(
    ("log_std", "tolerance"), [(-8.0, 1e-5), (-1.0, 1e-5), (0.0, 1e-5), (2.0, 2e-2)]
)
def test_the_entropy_of_a_squashed_normal_is_its_integral(log_std: float, tolerance: float) -> None:
    z = np.linspace(-12, 12, 200_001)
    d, one = tanh_normal, Continuous((), np.float32, -1.0, 3.0)
    for mean in (-4.0, 0.0, 0.7, 60.0):
        u = mean + np.exp(log_std) * z
        log_prob = log_density(z) - log_std - np.log(4) + 2 * np.logaddexp(u, -u) - np.log(2)
        slow = -np.trapezoid(np.exp(log_density(z)) * log_prob, z)
        assert_close(d(one).entropy(jnp.array([mean, log_std])), slow, tolerance)


def test_a_product_sums_over_its_parts() -> None:
    d = from_space((Discrete(5), {"x": BOX}))
    assert d.size == 5 + 6
    logits, legal = GOLDEN["categorical/logits"], GOLDEN["categorical/legal"]
    action = (GOLDEN["categorical/action"], {"x": GOLDEN["normal/action"]})
    parameters, masks = np.concatenate([logits, NORMAL], axis=-1), (legal, {"x": ()})
    log_prob = GOLDEN["categorical/log_prob"] + GOLDEN["normal/log_prob"]
    entropy = GOLDEN["categorical/entropy"] + GOLDEN["normal/entropy"]
    assert_close(d.log_prob(parameters, action, masks), log_prob)
    assert_close(d.entropy(parameters, masks), entropy)
    drawn, own = d.sample_and_log_prob(jax.random.key(0), parameters, masks)
    assert_close(own, d.log_prob(parameters, drawn, masks))
    np.testing.assert_array_equal(d.mode(parameters, masks)[0], GOLDEN["categorical/mode"])
    assert np.all(np.take_along_axis(legal, np.asarray(drawn[0])[:, None], axis=-1))


def masked_probabilities(logits: Any, legal: Any) -> Any:
    weights = np.where(legal, np.exp(logits.astype(float)), 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def test_what_is_illegal_is_never_drawn() -> None:
    """Not even where its logits are by far the largest; frequencies are those of the others."""
    d = from_space(SEVERAL)
    parameters = jnp.tile(jnp.array([0.0, 30, 1, 30, 0, 1, 1, 30, 0]), (2, 1))
    draws = 2000
    keys = jax.random.split(jax.random.key(0), draws)
    action = jax.jit(jax.vmap(lambda key: d.sample(key, parameters, MASKS)))(keys)
    for drawn, legal, logits in zip(
        jax.tree.leaves(action),
        jax.tree.leaves(MASKS),
        np.split(parameters, [3, 5], -1),
        strict=True,
    ):
        assert drawn.dtype == np.int32
        p = masked_probabilities(logits, legal)
        shares = np.stack([(drawn == a).mean(axis=0) for a in range(p.shape[-1])], axis=-1)
        assert np.all(shares[~legal] == 0)
        np.testing.assert_allclose(shares, p, atol=4 * 0.5 / np.sqrt(draws))
    for best, legal in zip(
        jax.tree.leaves(d.mode(parameters, MASKS)), jax.tree.leaves(MASKS), strict=True
    ):
        assert np.all(np.take_along_axis(legal, np.asarray(best)[:, None], axis=-1))


def test_entropy_is_of_what_is_legal() -> None:
    d = from_space(SEVERAL)
    parameters = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    parts = zip(np.split(parameters, [3, 5], axis=-1), jax.tree.leaves(MASKS), strict=True)
    p = np.concatenate([masked_probabilities(*x) for x in parts], axis=-1)
    slow = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
    assert_close(d.entropy(parameters, MASKS), slow)
    one = (MASKS[0][1:], jax.tree.map(lambda x: x[1:], MASKS[1]))
    assert_close(categorical(3).entropy(parameters[1:, :3], one[0]), [0.0])  # one is left


def test_gradients_stop_at_what_is_illegal() -> None:
    """They are finite, also with logits so far apart that probabilities are 0 in float32."""
    d = categorical(3)
    legal = jnp.array([True, False, True])

    def loss(logits: Any) -> Any:
        return d.entropy(logits, legal) + d.log_prob(logits, jnp.int32(2), legal)

    for logits in ([0.0, 0.0, 0.0], [500.0, 1e30, -500.0], [-1e30, 3.0, 1e30]):
        slope = jax.grad(loss)(jnp.array(logits))
        assert np.all(np.isfinite(slope)) and slope[1] == 0
    assert d.log_prob(jnp.zeros(3), jnp.int32(1), legal) == -np.inf


@pytest.mark.parametrize("make", [normal, tanh_normal])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_shapes(make: Any, batch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    d = make(Continuous(shape, jnp.float32, -2.0, 2.0))
    parameters = jnp.zeros((*batch, d.size))
    action, log_prob = jax.eval_shape(d.sample_and_log_prob, jax.random.key(0), parameters)
    assert action.shape == (*batch, *shape) and log_prob.shape == batch
    assert jax.eval_shape(d.log_prob, parameters, action).shape == batch
    assert jax.eval_shape(d.entropy, parameters).shape == batch
    assert jax.eval_shape(d.mode, parameters).shape == (*batch, *shape)


@pytest.mark.parametrize(
    "bounds", [(-np.inf, np.inf), (0.0, np.inf), (np.float32(-3e38), np.float32(3e38))]
)
def test_without_bounds_units_are_plain_numbers(bounds: Any) -> None:
    space = Continuous((), jnp.float32, *bounds)
    assert_close(
        normal(space).log_prob(jnp.array([1.0, 0.5]), jnp.float32(3)),
        log_density(2 / np.exp(0.5)) - 0.5,
    )
    with pytest.raises(
        ValueError, match=r"^actions: tanh_normal needs finite bounds, which .*not$"
    ):
        tanh_normal(space)


def test_bounds_may_be_traced() -> None:
    def log_prob(high: Any) -> Any:
        space = Continuous((3,), jnp.float32, BOX.low, high)
        return [
            make(space).log_prob(NORMAL[9], GOLDEN["tanh/action"][9])
            for make in (normal, tanh_normal)
        ]

    np.testing.assert_allclose(jax.jit(log_prob)(BOX.high), log_prob(BOX.high), rtol=1e-5)


def test_integers_are_no_continuous_actions() -> None:
    for make in (normal, tanh_normal):
        with pytest.raises(ValueError, match=r"^actions: int32 is not a floating dtype$"):
            make(Continuous((), jnp.int32, 0, 3))


def test_actions_are_clipped_part_by_part() -> None:
    action = (jnp.int32([7, 2]), jnp.float32([[-9, 0, 20], [1, 1, 1]]))
    clipped = clip((Discrete(8), BOX), action)
    np.testing.assert_array_equal(clipped[0], [7, 2])
    np.testing.assert_array_equal(clipped[1], [[-2, 0, 10], [1, 1, 1]])


def test_one_part_alone_is_a_product() -> None:
    alone, of_one = categorical(5), product(categorical(5))
    logits, action = GOLDEN["categorical/logits"], GOLDEN["categorical/action"]
    np.testing.assert_array_equal(alone.log_prob(logits, action), of_one.log_prob(logits, action))
