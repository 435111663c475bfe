import hashlib
import json
import math
import os
import re
import stat
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import damage
from memrl_jax.run import checkpoint

DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "bfloat16", "float8_e4m3fn", "int4"),
]
PREFIX = len(b"memrl_jax checkpoint 1\n")


class Buffer(NamedTuple):
    frames: Any
    done: Any
    empty: Any
    position: Any


class Train(flax.struct.PyTreeNode):
    key: Any
    params: Any
    optimizer: Any
    buffer: Buffer
    name: str = flax.struct.field(pytree_node=False, default="static")


def make_train() -> Train:
    params = {"w": jnp.arange(6.0).reshape(2, 3), "half": jnp.full((2, 2), 1.5, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    frames = jnp.arange(24, dtype=jnp.uint8).reshape(2, 3, 4)
    buffer = Buffer(frames, jnp.array([True, False]), jnp.zeros((0, 3)), jnp.int32(7))
    return Train(jax.random.key(3), params, optimizer.init(params), buffer)


def bits(leaf: Any) -> Any:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return leaf.dtype.name, leaf.shape, np.asarray(leaf).tobytes()


def flat(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [bits(leaf) for leaf in leaves]


def assert_same(old: Any, new: Any) -> None:
    assert flat(old) == flat(new)


def raises(path: Path, what: str) -> Any:
    """One line that starts with the path and goes on with `what`."""
    return pytest.raises(ValueError, match=rf"\A{re.escape(str(path))}: {what}.*\Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.ckpt"


@pytest.mark.parametrize("spec", [lambda tree: tree, lambda tree: jax.eval_shape(lambda: tree)])
def test_train_state_round_trip(path, spec):
    train = make_train()
    checkpoint.save(path, train, {"step": 1000})
    loaded = checkpoint.load(path, spec(train))
    assert_same(train, loaded)
    assert type(loaded.optimizer[1][0]) is optax.ScaleByAdamState
    ordinary = [leaf for leaf in jax.tree.leaves(loaded) if leaf is not loaded.key]
    assert all(type(leaf) is np.ndarray for leaf in ordinary)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("tree", [(), {}, {"a": None}, np.float32(3), jnp.zeros((0,)), [1, 2.5]])
def test_small_trees(path, tree):
    checkpoint.save(str(path), tree)
    assert_same(jax.tree.map(np.asarray, tree), checkpoint.load(str(path), tree))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=4
    )
)
def test_round_trip_of_any_shape_and_dtype(tmp_path_factory, specs):
    random = np.random.default_rng(0)
    tree = [
        random.integers(0, 2, math.prod(shape)).astype(dtype).reshape(shape)
        for dtype, shape in specs
    ]
    path = tmp_path_factory.mktemp("any") / "a"
    checkpoint.save(path, tree)
    assert_same(tree, checkpoint.load(path, tree))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_nan_payloads_keep_their_bits(path, dtype):
    array = np.frombuffer(np.random.default_rng(1).bytes(1 << 14), dtype)
    with np.errstate(invalid="ignore"):
        assert np.isnan(array).any()
    checkpoint.save(path, array)
    assert_same(array, checkpoint.load(path, array))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_keys(path, impl):
    keys = jax.random.split(jax.random.key(5, impl=impl), (2, 3))
    checkpoint.save(path, keys)
    loaded = checkpoint.load(path, jax.eval_shape(lambda: keys))
    assert_same(keys, loaded)
    assert jax.random.bits(loaded[1, 2]) == jax.random.bits(keys[1, 2])


def test_any_memory_layout_is_stored_in_little_endian_c_order(path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    checkpoint.save(path, {"a": array})
    expected = path.read_bytes()
    for same in (np.asfortranarray(array), array.astype(">f4"), np.repeat(array, 2, 1)[:, ::2]):
        checkpoint.save(path, {"a": same})
        assert path.read_bytes() == expected
    assert array.tobytes() == expected[-32 - array.nbytes : -32]


def test_file_has_the_documented_layout(path):
    tree = {"b": np.array([1, 2, 3], np.uint8), "k": jax.random.key(0)}
    checkpoint.save(path, tree, {"step": 1})
    data = path.read_bytes()
    length = int.from_bytes(data[PREFIX : PREFIX + 8], "little")
    end = PREFIX + 8 + length
    leaf = {
        "leaf": "['b']",
        "key_impl": None,
        "dtype": "uint8",
        "shape": [3],
        "offset": 0,
        "length": 3,
    }
    key = {"leaf": "['k']", "key_impl": "threefry2x32", "dtype": "uint32", "shape": [2]}
    leaves = [leaf, key | {"offset": 3, "length": 8}]
    assert json.loads(data[PREFIX + 8 : end]) == {"about": {"step": 1}, "leaves": leaves}
    assert data[end : end + 32] == hashlib.sha256(data[:end]).digest()
    assert data[end + 32 : end + 35] == b"\1\2\3"
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


@pytest.mark.parametrize("about", [None, {}, {"step": 1000, "config": {"name": "é", "lr": 1e-3}}])
def test_about_does_not_need_the_leaves(path, about):
    checkpoint.save(path, np.arange(1000), about)
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)
    assert checkpoint.about(path) == (about or {})


@pytest.mark.parametrize(
    "shape", [(), (64,), (65,), (1000,), (3, 100), (5, 20), (2, 3, 7, 5), (5, 1, 300)]
)
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_blocks_are_small_and_in_order(monkeypatch, shape, make):
    monkeypatch.setattr(checkpoint, "BLOCK", 64)
    array = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    blocks = [np.asarray(block) for block in checkpoint._blocks(make(array))]
    assert b"".join(block.tobytes() for block in blocks) == array.tobytes()
    assert max(block.nbytes for block in blocks) <= 64


def test_large_leaves_are_streamed(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "BLOCK", 1 << 16)
    array = np.arange(1 << 20, dtype=np.float64).reshape(1 << 10, -1).T
    tracemalloc.start()
    checkpoint.save(path, array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 8
    assert_same(array, checkpoint.load(path, array))


def test_missing_file_and_folder(path):
    for read in (checkpoint.about, lambda path: checkpoint.load(path, ())):
        with raises(path, "No such file"):
            read(path)
        with raises(path.parent, "Is a directory"):
            read(path.parent)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"PK\3\4" * 100, b"memrl_jax checkpoint x\n", b"\0" * 99]
)
def test_foreign_file(path, data):
    path.write_bytes(data)
    for read in (checkpoint.about, lambda path: checkpoint.load(path, ())):
        with raises(path, "not a memrl_jax checkpoint"):
            read(path)


def test_unknown_version(path):
    checkpoint.save(path, ())
    path.write_bytes(path.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 12\n"))
    with raises(path, "checkpoint version 12 is unknown, this reads 1"):
        checkpoint.load(path, ())


def test_truncated_anywhere(path):
    tree = {"a": np.arange(3), "k": jax.random.key(0)}
    checkpoint.save(path, tree)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        found = f"truncated, expected .*{length}\\Z"
        with raises(path, found if length >= PREFIX else "not a memrl_jax checkpoint"):
            checkpoint.load(path, tree)
    with raises(path, f"truncated, expected {len(data)} bytes, found {len(data) - 1}"):
        checkpoint.about(path)


def test_too_long(path):
    checkpoint.save(path, np.arange(3))
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    with raises(path, f"too long, expected {len(data)} bytes, found {len(data) + 1}"):
        checkpoint.load(path, np.arange(3))


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_any_changed_byte_is_found(path, mask):
    tree = {"a": np.arange(3), "k": jax.random.key(0)}
    checkpoint.save(path, tree, {"step": 1})
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= mask
        path.write_bytes(changed)
        leaves = position >= len(data) - 32 - 32
        with raises(path, "checksum mismatch, the leaves are damaged" if leaves else ""):
            checkpoint.load(path, tree)


@pytest.mark.parametrize("length", [1 << 13, 1 << 20, 1 << 62, (1 << 64) - 1])
def test_absurd_header_length_allocates_little(path, monkeypatch, length):
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT", 1 << 12)
    checkpoint.save(path, np.zeros(1 << 19))
    with path.open("r+b") as file:
        file.seek(PREFIX)
        file.write(length.to_bytes(8, "little"))
    tracemalloc.start()
    with raises(path, "(truncated|checksum mismatch)"):
        checkpoint.about(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18


BASE: dict[str, Any] = {
    "a": np.zeros((2, 3), np.float32),
    "b": np.zeros(4, np.int32),
    "k": jax.random.key(0),
}


@pytest.mark.parametrize(
    ("like", "what"),
    [
        (BASE | {"c": np.zeros(1)}, r"missing leaves \(1\): \['c'\]\Z"),
        ({"a": BASE["a"]}, r"unexpected leaves \(2\): \['b'\], \['k'\]\Z"),
        (
            {"a": BASE["a"], "x": dict.fromkeys("pqrs", BASE["b"])},
            r"missing leaves \(4\): \['x'\]\['p'\], .*\['r'\]; unexpected leaves \(2\): \['b'\]",
        ),
        (BASE | {"a": BASE["a"].T}, r"shape of leaf \['a'\] is \[2, 3\] in the file, \[3, 2\] exp"),
        (
            BASE | {"b": np.zeros(4)},
            r"dtype of leaf \['b'\] is int32 in the file, float64 expected",
        ),
        (
            BASE | {"k": jax.random.key(0, impl="rbg")},
            r"key_impl of leaf \['k'\] is threefry2x32 in the file, rbg expected",
        ),
        (BASE | {"k": np.zeros(2, np.uint32)}, r"key_impl of leaf .* in the file, None expected"),
        (BASE["a"], r"missing leaves \(1\): <root>; unexpected leaves \(3\)"),
    ],
)
def test_different_tree(path, like, what):
    checkpoint.save(path, BASE)
    with raises(path, what):
        checkpoint.load(path, like)
    with raises(path, what):
        checkpoint.load(path, jax.eval_shape(lambda: like) if "float64" not in what else like)


def test_reordered_fields_are_not_mixed_up(path):
    class Pair(NamedTuple):
        x: Any
        y: Any

    class Swapped(NamedTuple):
        y: Any
        x: Any

    checkpoint.save(path, Pair(np.zeros(2), np.ones(2)))
    with raises(path, r"leaf of leaf \.y is \.x in the file, \.y expected"):
        checkpoint.load(path, Swapped(np.zeros(2), np.zeros(2)))


@pytest.mark.parametrize("leaf", ["text", object(), np.array(["a"]), np.zeros(2, "datetime64[s]")])
def test_unstorable_leaf(path, leaf):
    with raises(path, r"leaf \['a'\]\[1\] has dtype .*, only numbers and bools can be stored"):
        checkpoint.save(path, {"a": [1.0, leaf]})
    assert os.listdir(path.parent) == []


def test_unstorable_about(path, monkeypatch):
    with raises(path, "about cannot be stored: Object of type float32 is not JSON serializable"):
        checkpoint.save(path, (), {"loss": np.float32(1)})
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT", 100)
    with raises(path, r"header of \d+ bytes, at most 100 can be stored"):
        checkpoint.save(path, (), {"long": "x" * 100})
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "memrl_jax.run.checkpoint._blocks"])
def test_failed_write_leaves_the_earlier_checkpoint(path, monkeypatch, where, error):
    def fail(*_):
        raise error

    checkpoint.save(path, np.arange(3))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            checkpoint.save(path, np.arange(4))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_deleted_array_leaves_no_file(path):
    array = jnp.zeros(3)
    array.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        checkpoint.save(path, {"a": np.zeros(3), "b": array})
    assert os.listdir(path.parent) == []


def test_file_is_synced_before_and_folder_after_the_rename(path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_replace(old: Any, new: Any) -> None:
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    checkpoint.save(path, np.arange(3))
    assert calls == ["file", "rename", "folder"]


LEAF: dict[str, Any] = {"leaf": "x", "key_impl": None, "dtype": "int8", "shape": []}
LEAF |= {"offset": 0, "length": 1}
ODD: tuple[Any, ...] = ({}, 1.5)


@pytest.mark.parametrize(
    "text, what",
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("\udc80", "'utf-8' codec can't decode"),
        ("9" * 5000, "Exceeds the limit"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested too deeply"),
        *((text, "the header is not one of a checkpoint") for text in ("1", "[]", "{}", '"x"')),
        *(
            (json.dumps(header), "the header is not one of a checkpoint")
            for header in (
                {"leaves": []},
                {"about": {}},
                {"about": [], "leaves": []},
                {"about": {}, "leaves": {}},
                {"about": {}, "leaves": [1]},
                {"about": {}, "leaves": [{}]},
                *({"about": {}, "leaves": [LEAF | {k: x}]} for k in LEAF for x in ODD),
            )
        ),
        *(
            (json.dumps({"about": {}, "leaves": [LEAF | given]}), what)
            for given, what in (
                ({"length": -(10**30)}, "too long"),
                ({"length": 1e400}, "the header is not"),
                ({"leaf": "a\nb"}, r"missing leaves \(1\): \['x'\]; unexpected .*: a b"),
            )
        ),
    ],
)
def test_a_right_checksum_does_not_make_a_header(path, text, what):
    checkpoint.save(path, {"x": np.int8(1)})
    path.write_bytes(damage.with_header(path.read_bytes(), text.encode(errors="surrogateescape")))
    with raises(path, what):
        checkpoint.load(path, {"x": np.int8(1)})


def test_what_is_no_file_is_refused_at_once(path):
    os.mkfifo(path)
    for read in (checkpoint.about, lambda path: checkpoint.load(path, ())):
        with raises(path, "Not a regular file"):
            read(path)


def test_errors_while_writing_name_the_file(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        checkpoint.save(path, ())
