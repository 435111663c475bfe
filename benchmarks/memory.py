"""Neural memories alone: time, compile time and bytes of state, beside flax's cells and memax.

    python -m benchmarks.memory [--quick]

B sequences of T inputs of D features, with resets: forward alone, and with the gradient of
parameters and inputs; and, of ours, a `step` of one sequence, as an agent acts. With --quick, only
memories that have a target. All programs of one length are timed in turns, and ratios are medians
over the turns; even so they mean little on a machine that is busy with other things. Figures go to
benchmarks/results/.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from rich.table import Table

from benchmarks import command, peers, report
from benchmarks.command import Say, Setting
from benchmarks.peers import MEMAX
from benchmarks.targets import ACCELERATED, MEMORY
from benchmarks.timing import Program, Timing, compiled, interleave, loop
from memrl_jax import tree
from memrl_jax.memory import MEMORIES, deltanet
from memrl_jax.memory.monoid import Scan
from memrl_jax.types import Array, NeuralMemory

B, D = 32, 128
# Memories that are timed with every scan they have; the others use the one that suits the platform.
SCANNED = ("mingru", "lru")
MATRICES = ("linear_attention", "mlstm", "deltanet")  # those with chunks
# The width of all others is D, their other sizes are the defaults.
EXTERNAL = {"slots": 128, "width": 32, "hidden": D}
OPTIONS: dict[str, dict[str, int]] = {"ntm": EXTERNAL, "dnc": EXTERNAL}


class Plan(NamedTuple):
    """What to time, and for how long."""

    lengths: tuple[int, ...]
    names: tuple[str, ...]  # of our memories
    peers: tuple[str, ...]  # of memax's models
    seconds: float  # a turn of a program
    turns: int


THEIRS = ("GRU", "LSTM", "LRU", "FFM", "linear attention", "DeltaNet", "DeltaNet, gated")
FULL = Plan((64, 256, 1024), (*MEMORIES, "deltanet, gated"), THEIRS, seconds=0.2, turns=5)
QUICK = FULL._replace(names=("gru", "lstm", "mingru", "lru", "ntm", "dnc"), peers=())


class Model(NamedTuple):
    """A memory to time: `run(params, xs [T, B, D], starts [T, B]) -> ys [T, B, ...]`."""

    name: str
    params: Any
    run: Callable[[Any, Array, Array], Array]
    nbytes: int  # of the state of one sequence
    memory: NeuralMemory | None = None  # if it is one of ours


def ours(name: str) -> list[Model]:
    """Make one of our memories; those in SCANNED once for every scan."""
    if name in SCANNED:
        return scanned(name)
    if name == "deltanet, gated":
        return [_ours(name, deltanet(D, gated=True))]
    sized = {} if name == "none" else {"features": D}
    return [_ours(name, MEMORIES[name](**sized, **OPTIONS.get(name, {})))]


def scanned(name: str) -> list[Model]:
    """Make one of our memories once for every scan that it can be unrolled by."""
    scans: tuple[Scan, ...] = ("sequential", "associative")
    scans = (*scans, "chunked") if name in MATRICES else scans
    return [_ours(f"{name}, {scan}", MEMORIES[name](D, scan=scan)) for scan in scans]


def _ours(name: str, memory: NeuralMemory) -> Model:
    params = jax.jit(memory.init)(jax.random.key(0), jnp.zeros(D, jnp.float32))
    state = memory.initial_state()

    def run(params: Any, xs: Array, starts: Array) -> Array:
        return jax.vmap(memory.unroll, (None, None, 1, 1), (0, 1))(params, state, xs, starts)[1]

    return Model(name, params, run, tree.nbytes(state), memory)


def flax(name: str) -> Model:
    """Make a cell of flax, unrolled by flax, without resets."""
    cell = {"flax GRU": nn.GRUCell, "flax LSTM": nn.OptimizedLSTMCell}[name](D)
    rnn = nn.RNN(cell, time_major=True)
    params = jax.jit(rnn.init)(jax.random.key(0), jnp.zeros((2, B, D), jnp.float32))
    carry = cell.initialize_carry(jax.random.key(0), (D,))

    def run(params: Any, xs: Array, starts: Array) -> Any:
        return rnn.apply(params, xs)

    return Model(name, params, run, tree.nbytes(carry))


def memax(name: str) -> Model:
    """Make a model of memax, vmapped over sequences as its trainer does."""
    import equinox as eqx
    from memax.equinox.semigroups import delta, fart, ffm, gdn, lru
    from memax.equinox.set_actions import gru, lstm

    key = jax.random.key(0)
    models = {
        "GRU": lambda: gru.GRU(recurrent_size=D, key=key),
        "LSTM": lambda: lstm.LSTM(recurrent_size=D, key=key),
        "LRU": lambda: lru.LRU(recurrent_size=D, hidden_size=D, key=key),
        "FFM": lambda: ffm.FFM(hidden_size=D, trace_size=32, context_size=4, key=key),
        "linear attention": lambda: fart.FART(hidden_size=D, recurrent_size=32, key=key),
        "DeltaNet": lambda: delta.DeltaNet(hidden_size=D, recurrent_size=32, key=key),
        "DeltaNet, gated": lambda: gdn.GDN(hidden_size=D, recurrent_size=32, key=key),
    }
    model = models[name]()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = model.initialize_carry()

    def run(params: Any, xs: Array, starts: Array) -> Array:
        model = eqx.combine(params, static)
        return jax.vmap(lambda xs, starts: model(state, (xs, starts))[1], 1, 1)(xs, starts)

    return Model(f"{MEMAX} {name}", params, run, tree.nbytes(eqx.filter(state, eqx.is_array)))


def models(plan: Plan) -> list[Model]:
    """Make all that is timed together."""
    found = [model for name in plan.names for model in ours(name)]
    found += [flax("flax GRU"), flax("flax LSTM")]
    if peers.installed(MEMAX):
        found += [memax(name) for name in plan.peers]
    return found


def programs(model: Model, length: int) -> list[Program]:
    """Prepare a model's passes over `length` inputs and, if it is one of ours, its single step."""
    return [*passes(model, length), *([single_step(model, length)] if model.memory else [])]


def inputs(length: int) -> Array:
    return jax.random.normal(jax.random.key(1), (length, B, D), jnp.float32)


def passes(model: Model, length: int) -> list[Program]:
    """Prepare a model's forward pass, and its forward and backward pass, on `length` inputs."""
    xs, starts_key = inputs(length), jax.random.key(2)
    starts = jax.random.bernoulli(starts_key, 1 / 100, (length, B))

    def loss(params: Any, xs: Array) -> Array:
        return jnp.mean(model.run(params, xs, starts) ** 2)

    # Results go into the next iteration, so that the compiler cannot leave anything out.
    def forward(carry: Any) -> Any:
        params, xs = carry
        return params, xs + 1e-9 * loss(params, xs)

    def backward(carry: Any) -> Any:
        gradient = jax.grad(loss, (0, 1))(*carry)
        return jax.tree.map(lambda x, g: x - 1e-9 * g, carry, gradient)

    return [
        compiled(
            (f"{model.name} | {name}", length, 1),
            loop(f),
            jax.tree.map(jnp.copy, (model.params, xs)),
        )
        for name, f in {"forward": forward, "both": backward}.items()
    ]


def single_step(model: Model, length: int) -> Program:
    """Prepare the memory's step of one sequence, which goes over its inputs again and again."""
    memory: Any = model.memory
    xs = inputs(length)[:, 0]

    def step(carry: Any) -> Any:
        params, xs, t, state, _ = carry
        state, y = memory.step(params, state, xs[t % length], jnp.zeros((), bool))
        return params, xs, t + 1, state, y

    state, start = memory.initial_state(), jnp.zeros((), bool)
    y = jax.tree.map(jnp.zeros_like, jax.eval_shape(memory.step, model.params, state, xs[0], start))
    carry = model.params, xs, jnp.int32(0), state, y[1]
    case = f"{model.name} | step", length, 1
    return compiled(case, loop(step), jax.tree.map(jnp.copy, carry))


def setting(plan: Plan, length: int, made: Sequence[Model]) -> Setting:
    """Time all models on sequences of one length."""

    def measure(say: Say) -> list[Timing]:
        found = []
        for model in made:
            say(f"compiling {model.name}, T = {length}")
            found += programs(model, length)
        say(f"timing {len(found)} programs, {plan.turns} turns")
        return interleave(found, plan.seconds, plan.turns)

    def tables(timings: Sequence[Timing]) -> list[Table]:
        nbytes = {model.name: model.nbytes for model in made}
        return [report.memories(timings, nbytes, "flax GRU")]

    targets = MEMORY if jax.default_backend() == "cpu" else ACCELERATED if length == 1024 else ()
    return Setting(f"T = {length}, B = {B}, D = {D}", measure, tables, targets)


def main() -> None:
    quick = command.quick(__doc__.partition("\n")[0])
    plan = QUICK if quick else FULL
    made = models(plan)
    machine = report.machine((MEMAX,)) | {"device": jax.devices()[0].device_kind}
    settings = [setting(plan, length, made) for length in plan.lengths]
    command.run("memory-quick" if quick else "memory", machine, settings)


if __name__ == "__main__":
    main()
