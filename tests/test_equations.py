"""Memories against the equations of their papers, written out in NumPy one step at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import MEMORIES

T, D, F, HEADS = 9, 3, 4, 2


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def softplus(x: Any) -> Any:
    return np.log1p(np.exp(x))


def dense(layer: Any, x: Any) -> Any:
    layer = layer.get("Dense_0", layer)
    return x @ layer["kernel"] + layer.get("bias", 0)


def heads(layer: Any, x: Any) -> Any:
    return dense(layer, x).reshape(HEADS, -1)


def unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def gru(p: Any, h: Any, x: Any) -> Any:
    """Cho et al. (2014), equations 5 to 7, with the reset gate after the product."""
    r, z = (sigmoid(dense(p[f"i{gate}"], x) + dense(p[f"h{gate}"], h)) for gate in "rz")
    h = z * h + (1 - z) * np.tanh(dense(p["in"], x) + r * dense(p["hn"], h))
    return h, h


def mingru(p: Any, h: Any, x: Any) -> Any:
    """Feng et al. (2024), section 3.1."""
    z = sigmoid(dense(p["gate"], x))
    h = (1 - z) * h + z * dense(p["candidate"], x)
    return h, h


def mlstm(p: Any, state: Any, x: Any) -> Any:
    """Beck et al. (2024), equations 19 to 27, not stabilized."""
    cell, n = state
    q, k, v = (heads(p[name], x) for name in ("query", "key", "value"))
    k = k / np.sqrt(F // HEADS)
    i, f = np.exp(dense(p["write"], x)), sigmoid(dense(p["forget"], x))
    cell = f[:, None, None] * cell + i[:, None, None] * v[:, :, None] * k[:, None]
    n = f[:, None] * n + i[:, None] * k
    found = (cell @ q[:, :, None])[:, :, 0]
    found = found / np.maximum(np.abs(np.sum(n * q, axis=-1)), 1)[:, None]
    return (cell, n), sigmoid(dense(p["output"], x)) * found.reshape(-1)


def linear_attention(p: Any, state: Any, x: Any) -> Any:
    """Katharopoulos et al. (2020), equations 18 to 20, without the last one's input."""
    s, z = state
    q, k, v = (heads(p[name], x) for name in ("query", "key", "value"))
    q, k = (np.where(x > 0, x + 1, np.exp(x)) for x in (q, k))
    s, z = s + k[:, :, None] * v[:, None], z + k
    found = (q[:, None] @ s)[:, 0] / np.sum(q * z, axis=-1, keepdims=True)
    return (s, z), dense(p["out"], found.reshape(-1))


def deltanet(p: Any, s: Any, x: Any, keep: Any = 1.0, gate: Any = 1.0) -> Any:
    """Yang, Kautz & Hatamizadeh (2025), equation 10, and a norm over what is read."""
    q, k, v = (silu(heads(p[name], x)) for name in ("query", "key", "value"))
    q, k = unit(q), unit(k)
    beta = sigmoid(dense(p["rate"], x))[:, None, None]
    s = keep * (s @ (np.eye(F // HEADS) - beta * k[:, :, None] * k[:, None]))
    s = s + beta * v[:, :, None] * k[:, None]
    y = (s @ q[:, :, None])[:, :, 0]
    y = y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
    return s, dense(p["out"], (y * gate).reshape(-1))


def gated_deltanet(p: Any, s: Any, x: Any) -> Any:
    """The same with decay and output gate."""
    keep = np.exp(-np.exp(p["decay"]) * softplus(dense(p["step"], x)))
    return deltanet(p, s, x, keep[:, None, None], silu(heads(p["gate"], x)))


def shm(p: Any, m: Any, x: Any) -> Any:
    """Le et al. (2025), equations 4 to 9, with one theta and the skip of the authors' code."""
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    k, q = (np.maximum(dense(p[name], x), 0) for name in ("key", "query"))
    k, q = k / (1e-5 + k.sum()), q / (1e-5 + q.sum())
    calibration = 1 + np.tanh(np.outer(p["theta"][0], dense(p["calibration"], x)))
    m = m * calibration + np.outer(sigmoid(dense(p["strength"], x)) * dense(p["value"], x), k)
    return m, dense(p["out"], m @ q + dense(p["skip"], x))


SQUARE, KEYS = np.zeros((HEADS, F // HEADS, F // HEADS)), np.zeros((HEADS, F // HEADS))
# By name: the constructor's options, the equations, the state that they begin from.
EQUATIONS: dict[str, tuple[dict[str, Any], Callable[..., Any], Any]] = {
    "gru": ({}, gru, np.zeros(F)),
    "mingru": ({}, mingru, np.zeros(F)),
    "mlstm": ({"heads": HEADS}, mlstm, (SQUARE, KEYS)),
    "linear_attention": ({"heads": HEADS}, linear_attention, (SQUARE, KEYS)),
    "deltanet": ({"heads": HEADS}, deltanet, SQUARE),
    "deltanet, gated": ({"heads": HEADS, "gated": True}, gated_deltanet, SQUARE),
    "shm": ({"hidden": 5}, shm, np.zeros((5, 5))),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_memory_is_what_its_equations_say(name: str) -> None:
    options, step, state = EQUATIONS[name]
    memory = MEMORIES[name.split(",")[0]](features=F, **options)
    shapes = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(D))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.6, x.shape).astype(np.float32), shapes)
    xs = rng.normal(size=(T, D)).astype(np.float32)
    _, ys = jax.jit(memory.unroll)(params, memory.initial_state(), xs, np.zeros(T, bool))
    doubles = jax.tree.map(lambda x: x.astype(np.float64), params)["params"]
    for x, y in zip(xs.astype(np.float64), ys, strict=True):
        state, expected = step(doubles, state, x)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_theta_is_spread_as_one_row_of_128() -> None:
    """PyTorch's `xavier_uniform` draws [128, hidden] between plus and minus this bound."""
    init = MEMORIES["shm"](features=4, hidden=32).init
    keys = jax.random.split(jax.random.key(0), 50)
    params = jax.jit(jax.vmap(init, (0, None)))(keys, jnp.zeros(D))
    thetas = params["params"]["theta"]
    assert thetas.shape == (50, 1, 32)
    np.testing.assert_allclose(np.abs(thetas).max(), np.sqrt(6 / (128 + 32)), rtol=0.02)
