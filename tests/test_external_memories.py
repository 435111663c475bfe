"""The NTM and the DNC against numbers from other implementations, and their addressing.

tests/data/external_memories.npz: the DNC of its authors, run in float64, each part alone and 20
steps together; addressing and writing of the NTM as in two published implementations of it.
"""

import importlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memrl_jax.memory import MEMORIES

# The package gives the names of these modules to their constructors.
dnc = importlib.import_module("memrl_jax.memory.dnc")
ntm = importlib.import_module("memrl_jax.memory.ntm")


@cache
def golden(prefix: str) -> dict[str, Any]:
    with np.load(Path(__file__).parent / "data" / "external_memories.npz") as data:
        return {k.removeprefix(prefix): data[k] for k in data if k.startswith(prefix)}


def batched(f: Any) -> Any:
    """Compile f for arguments with a leading axis B."""
    return jax.jit(jax.vmap(f))


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# The DNC.


@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_contents_are_found_as_in_the_dnc(case: str) -> None:
    data = golden(f"dnc/cosine/{case}/")
    strengths = jax.nn.softplus(data["strengths_raw"])
    weights = batched(dnc.by_content)(data["memory"], data["keys"], strengths)
    assert_close(weights, data["weights"])


@pytest.mark.parametrize("case", ["0", "1"])
def test_links_follow_what_is_written(case: str) -> None:
    data = golden(f"dnc/linkage/{case}/")
    before = data["prev_link"], data["prev_precedence"], data["write_weights"]
    link, precedence = batched(dnc.linked)(*before)
    assert_close(link, data["link"])
    assert_close(precedence, data["precedence"])
    backward, forward = batched(dnc.along)(link, data["prev_read_weights"])
    assert_close(backward, data["backward"])
    assert_close(forward, data["forward"])


@pytest.mark.parametrize("case", ["0", "1"])
def test_free_slots_are_shared_out(case: str) -> None:
    """In float64, for one case is of slots that are nearly alike."""
    data = golden(f"dnc/freeness/{case}/")
    with jax.enable_x64(True):
        data = {k: x.astype(np.float64) for k, x in data.items()}
        before = (data[k] for k in ("prev_usage", "write_weights", "read_weights", "free_gate"))
        usage = batched(dnc.used)(*before)
        shared = batched(dnc.allocations)(usage, data["write_gates"])
    assert_close(usage, data["usage"])
    assert_close(shared, data["allocation"])


ORDER = ["write_vectors", "erase_vectors", "free_gate", "allocation_gate", "write_gate"]
ORDER += ["write_keys", "write_strengths", "read_keys", "read_strengths", "read_mode"]


def dnc_trace(case: str, dtype: Any) -> tuple[Any, Any]:
    """Run one of their traces of 20 steps: what our states and reads were, and theirs."""
    data = golden(f"dnc/{case}/")
    first = dnc.Access(*(data[f"init/{k}"].astype(dtype) for k in dnc.Access._fields))

    def step(state: Any, raw: Any) -> Any:
        state, reads = jax.vmap(dnc.access)(state, jax.vmap(dnc.interface)(*raw))
        return state, (state, reads)

    raw = tuple(data[f"raw/{k}"].astype(dtype) for k in ORDER)
    _, (states, reads) = jax.jit(partial(jax.lax.scan, step))(first, raw)
    theirs = {k: data[f"f64/{k}"] for k in (*dnc.Access._fields, "read_words")}
    return states._asdict() | {"read_words": reads}, theirs


@pytest.mark.parametrize("case", ["w1_jit", "w1_mid", "w2_mid"])
def test_twenty_steps_are_those_of_the_dnc(case: str) -> None:
    ours, theirs = dnc_trace(case, np.float32)
    for name in theirs:
        assert_close(ours[name], theirs[name])


@pytest.mark.parametrize("case", ["w1_zero", "w2_zero"])
def test_twenty_steps_from_an_empty_memory_are_those_of_the_dnc(case: str) -> None:
    """Free slots are all alike at first; which comes first is told apart in float64 only."""
    with jax.enable_x64(True):
        ours, theirs = dnc_trace(case, np.float64)
        for name in theirs:
            assert_close(ours[name], theirs[name])


def sorted_allocation(usage: Any) -> Any:
    """As the authors compute it: slots sorted by usage, and a running product."""
    usage = 1e-6 + (1 - 1e-6) * usage
    order = np.argsort(-(1 - usage), kind="stable")
    weights = np.zeros_like(usage)
    weights[order] = (1 - usage[order]) * np.cumprod(np.append(1, usage[order][:-1]))
    return weights


def test_slots_are_allocated_as_if_they_were_sorted() -> None:
    rng = np.random.default_rng(0)
    for usage in (rng.uniform(size=9), rng.integers(0, 3, 9) / 2, np.zeros(9), np.ones(9)):
        with jax.enable_x64(True):
            assert_close(jax.jit(dnc.allocation)(usage), sorted_allocation(usage), 1e-12)
        small = usage.astype(np.float32)
        assert_close(jax.jit(dnc.allocation)(small), sorted_allocation(small))


def test_the_gradient_of_links_is_that_of_the_code() -> None:
    rng = np.random.default_rng(0)
    before = [rng.uniform(size=shape) for shape in ((2, 5, 5), (2, 5), (2, 5), (3, 5))]
    with jax.enable_x64(True):

        def total(follow: Any, *before: Any) -> Any:
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(follow(*before)))

        ours, theirs = (jax.grad(total, (1, 2, 3, 4))(f, *before) for f in FOLLOW)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x, y, 1e-10)


FOLLOW = dnc.follow, dnc.follow.fun


@pytest.mark.parametrize("gradient", [False, True])
def test_the_dnc_neither_sorts_nor_scatters(gradient: bool) -> None:
    memory = MEMORIES["dnc"](4, slots=6, width=3, hidden=4, read_heads=2)
    params = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(2))
    given = memory.initial_state(), jnp.zeros((3, 2)), jnp.zeros(3, bool)

    def total(params: Any) -> Any:
        return jnp.sum(memory.unroll(params, *given)[1])

    program = jax.jit(jax.grad(total) if gradient else total).lower(params).compile().as_text()
    assert program and " while(" in program and " dot(" in program
    assert not any(f" {name}(" in program for name in ("sort", "scatter"))


def test_of_links_only_those_before_a_step_are_kept() -> None:
    """Of arrays as large as the links of all steps, one."""
    memory = MEMORIES["dnc"](4, slots=11, width=3, hidden=4, read_heads=2)
    params = jax.eval_shape(memory.init, jax.random.key(0), jnp.zeros(2))

    def total(params: Any, xs: Any) -> Any:
        starts = jnp.zeros(7, bool)
        return jnp.sum(memory.unroll(params, memory.initial_state(), xs, starts)[1])

    traced = jax.make_jaxpr(jax.grad(total))(params, jnp.zeros((7, 2)))
    scans = [equation for equation in traced.eqns if equation.primitive.name == "scan"]
    kept = [x.aval.shape for equation in scans for x in equation.outvars]
    assert len(scans) == 2 and kept.count((7, 1, 11, 11)) == 1


def test_no_gradient_flows_into_where_was_written() -> None:
    weights = jnp.full((1, 3), 0.3)
    usage = jnp.array([0.1, 0.5, 0.9])

    def total(write_weights: Any, read_weights: Any) -> Any:
        return jnp.sum(dnc.used(usage, write_weights, read_weights, jnp.ones(1)))

    of_writes, of_reads = jax.grad(total, (0, 1))(weights, weights)
    assert not np.any(of_writes) and np.all(of_reads)


# The NTM.


def raw_head(data: dict[str, Any], name: str) -> list[Any]:
    """Return what a controller says to one head, [10, B, 1 head, ...]."""
    fields = (data[f"raw_{name}_{k}"] for k in ("k", "beta", "g", "s", "gamma"))
    return [x[:, :, None] if x.ndim == 3 else x[:, :, None, None] for x in fields]


def test_addressing_is_that_of_the_published_formulas() -> None:
    """Every stage of it, on nine cases; their moves are +1, 0, -1."""
    data = golden("ntm/torch/")
    data = {k: x.reshape(-1, *x.shape[2:]) for k, x in data.items()}
    fields = data["k"][:, None], data["beta"], data["g"], data["s"][:, None, ::-1], data["gamma"]
    asked = ntm.Addressing(*fields)
    memory, before = data["memory"], data["w_prev"][:, None]
    content = batched(ntm.by_content)(memory, asked.key, asked.strength)
    assert_close(content[:, 0], data["w_content"])
    moved = batched(ntm.rotate)(data["w_interp"][:, None], asked.shift)
    assert_close(moved[:, 0], data["w_shift"])
    assert_close(batched(ntm.sharpen)(moved, asked.sharpness)[:, 0], data["w"])
    weights = batched(ntm.aim)(memory, asked, before)
    assert_close(weights[:, 0], data["w"])
    erase = jax.nn.sigmoid(data["raw_erase"])[:, None]
    written = batched(ntm.write)(memory, weights, erase, data["raw_add"][:, None])
    assert_close(written, data["memory_after_write"])


@pytest.mark.parametrize("shifts", [1, 2])
@pytest.mark.parametrize("case", ["", "_probe"])
def test_ten_steps_are_those_of_collier_and_beel(shifts: int, case: str) -> None:
    """A head that reads, one that writes; probes begin every step from the first state."""
    data = golden(f"ntm/tf{case}_sr{shifts}/")
    # Their moves are 0, 1, ..., r, -r, ..., -1.
    order = [*range(shifts + 1, 2 * shifts + 1), *range(shifts + 1)]
    read, written = raw_head(data, "read"), raw_head(data, "write")
    both = [np.concatenate(pair, axis=2) for pair in zip(read, written, strict=True)]
    both[3] = both[3][..., order]

    @jax.vmap
    def step(memory: Any, weights: Any, raw: Any, erase: Any, add: Any) -> Any:
        weights = ntm.aim(memory, ntm.addressing(*raw), weights)
        erase, add = jax.nn.sigmoid(ntm.clipped(erase)), jnp.tanh(ntm.clipped(add))
        return ntm.write(memory, weights[1:], erase, add), weights, weights[:1] @ memory

    first = (
        data["init_memory"],
        np.stack([data["init_w_read"], data["init_w_write"]], axis=1),
    )
    run, state = jax.jit(step), first
    for t in range(len(data["memory"])):
        raw = tuple(x[t] for x in both)
        before = first if case else state
        memory, weights, reads = run(
            *before, raw, data["raw_erase"][t][:, None], data["raw_add"][t][:, None]
        )
        state = memory, weights
        assert_close(memory, data["memory"][t])
        assert_close(weights[:, 0], data["w_read"][t])
        assert_close(weights[:, 1], data["w_write"][t])
        assert_close(reads[:, 0], data["read"][t])


@pytest.mark.parametrize("move", [-2, -1, 0, 1, 2])
def test_a_head_moves_by_as_many_slots_as_it_says(move: int) -> None:
    weights = np.eye(5, dtype=np.float32)[[3]]
    shift = np.eye(5, dtype=np.float32)[[move + 2]]
    np.testing.assert_array_equal(ntm.rotate(weights, shift)[0], np.eye(5)[(3 + move) % 5])


def test_a_head_that_neither_looks_nor_moves_stays() -> None:
    before = np.random.default_rng(0).dirichlet(np.ones(7), 2).astype(np.float32)
    memory = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    stay = np.array([[0, 1, 0]] * 2, np.float32)
    asked = ntm.Addressing(np.ones((2, 3), np.float32), np.ones(2), np.zeros(2), stay, np.ones(2))
    assert_close(ntm.aim(memory, asked, before), before, 1e-6)


def test_addresses_have_finite_gradients_in_an_empty_memory() -> None:
    def total(memory: Any, key: Any) -> Any:
        asked = ntm.Addressing(
            key, jnp.ones(1), jnp.ones(1) / 2, jnp.ones((1, 3)) / 3, 2 * jnp.ones(1)
        )
        weights = ntm.aim(memory, asked, jnp.eye(4)[:1])
        return jnp.sum(weights**2)

    for key in (jnp.zeros((1, 3)), jnp.ones((1, 3))):
        gradients = jax.grad(total, (0, 1))(jnp.zeros((4, 3)), key)
        assert all(np.isfinite(g).all() for g in gradients)


def test_the_ntm_begins_at_its_first_slot_and_learns_where_to() -> None:
    memory = MEMORIES["ntm"](4, slots=5, width=3, hidden=4)
    params = memory.init(jax.random.key(0), jnp.zeros(2))
    assert np.all(jax.nn.softmax(params["params"]["first_weights"])[:, 0] > 0.99)
    first = memory.inspect(params, memory.initial_state(), jnp.ones(2), jnp.array(False))
    assert first["memory"].shape == (5, 3)
    for name in ("read", "write"):
        assert_close(first[name].sum(axis=-1), 1)
    elsewhere = {"params": params["params"] | {"first_weights": 10 * jnp.eye(2, 5, 1)}}
    other = memory.inspect(elsewhere, memory.initial_state(), jnp.ones(2), jnp.array(False))
    assert np.abs(other["read"] - first["read"]).max() > 0.1
    state, _ = memory.step(params, memory.initial_state(), jnp.ones(2), jnp.array(False))
    assert_close(
        memory.step(elsewhere, state, jnp.ones(2), jnp.array(False))[1],
        memory.step(params, state, jnp.ones(2), jnp.array(False))[1],
    )


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("ntm", {"slots": 2}, "slots: 2 is below 3"),
        ("ntm", {"shifts": -1}, "shifts: -1 is below 0"),
        ("ntm", {"controller": "lsmt"}, "controller: 'lsmt' is unknown"),
        ("dnc", {"write_heads": 0}, "write_heads: 0 is "),
        ("dnc", {"controller": "mlp"}, "controller: 'mlp' is unknown"),
    ],
)
def test_sizes_have_to_be_some(name: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        MEMORIES[name](**options)


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_what_is_inspected_is_what_happens(name: str) -> None:
    memory = MEMORIES[name](4, slots=5, width=3, hidden=4)
    params = memory.init(jax.random.key(0), jnp.zeros(2))
    state = memory.initial_state()
    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), (2,))
        seen = memory.inspect(params, state, x, jnp.array(False))
        state, _ = memory.step(params, state, x, jnp.array(False))
        held = state.memory if name == "ntm" else state.access.memory
        np.testing.assert_array_equal(seen["memory"], held)
        assert seen["read"].shape[-1] == seen["write"].shape[-1] == 5
    assert memory.inspect(params, state, x, jnp.array(True))["memory"].shape == (5, 3)
