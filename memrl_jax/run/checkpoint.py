"""Any pytree of arrays in one file, written atomically and verified when read.

Integers are little-endian; a checksum is the SHA-256 of everything before it:

    memrl_jax checkpoint 1\\n    magic and version
    header length               8 bytes
    header                      JSON: the `about` of `save`, and a record of each leaf
    checksum                    32 bytes, which verify the header without the leaves
    leaves                      little-endian, in C order; offsets count from here
    checksum                    32 bytes
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memrl_jax.run import files

MAGIC = b"memrl_jax checkpoint"
VERSION = 1
BLOCK = 1 << 24  # bytes copied, hashed and written at a time
HEADER_LIMIT = 1 << 26  # bytes read before the first checksum, whatever the length field says
CHECKSUM = 32  # bytes
RECORD = {  # of a leaf, in the header
    "leaf": str,  # its path in the tree
    "key_impl": str | None,  # implementation of a typed PRNG key
    "dtype": str,
    "shape": list,
    "offset": int,
    "length": int,  # bytes
}


def save(path: str | os.PathLike[str], tree: Any, about: dict[str, Any] | None = None) -> None:
    """Write `tree` and the JSON dictionary `about` to `path` atomically.

    A file already at `path` is replaced only once the new one is safely on disk. Raises
    ValueError for a leaf or an `about` that cannot be stored, OSError if writing fails.
    """
    path = Path(path)
    with _errors_name(path):
        records, leaves, _ = _flatten(tree)
        header = _encode({"about": about or {}, "leaves": records})
    with files.replacing(path) as file:
        _write(file, header, leaves)


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Read the tree saved at `path` into the structure of `like`.

    `like` holds arrays or what `jax.eval_shape` returns. Leaves come back as NumPy arrays, typed
    PRNG keys as keys. Raises ValueError if the file cannot be read, is not a checkpoint, is
    truncated or damaged, or if its leaves differ from those of `like` in name, dtype or shape.
    """
    with _errors_name(path), files.opened(path) as file:
        records, _, structure = _flatten(like)
        header, digest = _read_header(file)
        if header["leaves"] != records:
            raise ValueError(_difference(header["leaves"], records))
        arrays: list[Any] = [_read(file, digest, record) for record in records]
        if file.read(CHECKSUM) != digest.digest():
            raise ValueError("checksum mismatch, the leaves are damaged")
    return structure.unflatten(
        jax.random.wrap_key_data(array, impl=record["key_impl"]) if record["key_impl"] else array
        for record, array in zip(records, arrays, strict=True)
    )


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the `about` given to `save`, without reading the leaves.

    Raises ValueError if the file cannot be read, is not a checkpoint, is truncated, or its header
    is damaged.
    """
    with _errors_name(path), files.opened(path) as file:
        return _read_header(file)[0]["about"]


def checksum(path: str | os.PathLike[str]) -> bytes:
    """Return what a checkpoint's bytes are verified by, without reading them.

    Raises ValueError if there is no such file.
    """
    with _errors_name(path), files.opened(path) as file:
        file.seek(-CHECKSUM, os.SEEK_END)
        return file.read()


@contextmanager
def _errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {files.reason(error)}") from error


def _flatten(tree: Any) -> tuple[list[dict[str, Any]], list[Any], Any]:
    """Return the header's record of each leaf, the leaves as plain arrays, and the structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    records, leaves, offset = [], [], 0
    for where, leaf in pairs:
        name = jax.tree_util.keystr(where) or "<root>"
        key_impl, numbers = _numbers(leaf if hasattr(leaf, "dtype") else np.asarray(leaf))
        shape, dtype = numbers.shape, numbers.dtype
        if not any(jax.dtypes.issubdtype(dtype, kind) for kind in (np.number, np.bool_)):
            raise ValueError(f"leaf {name} has dtype {dtype}, only numbers and bools can be stored")
        record = {"leaf": name, "key_impl": key_impl, "dtype": dtype.name, "shape": list(shape)}
        length = dtype.itemsize * math.prod(shape)
        records.append(record | {"offset": offset, "length": length})
        leaves.append(numbers)
        offset += length
    return records, leaves, structure


def _numbers(leaf: Any) -> tuple[str | None, Any]:
    """Return the implementation and the data of a typed PRNG key, or None and the array."""
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return None, leaf
    impl: list[Any] = []  # found by tracing: a ShapeDtypeStruct does not have it
    jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), leaf)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return impl[0], jax.eval_shape(jax.random.key_data, leaf)
    return impl[0], jax.random.key_data(leaf)


def _encode(header: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(header).encode()
    except TypeError as error:
        raise ValueError(f"about cannot be stored: {error}") from error
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"header of {len(text)} bytes, at most {HEADER_LIMIT} can be stored")
    return b"%s %d\n%s%s" % (MAGIC, VERSION, len(text).to_bytes(8, "little"), text)


def _decode(text: bytes) -> dict[str, Any]:
    """Parse a header and check the types of its parts, which a right checksum does not prove."""
    header = files.parse(text)
    match header:
        case {"about": dict(), "leaves": [*records]} if all(map(_is_record, records)):
            return header
    raise ValueError("the header is not one of a checkpoint")


def _is_record(x: Any) -> bool:
    return (
        isinstance(x, dict)
        and x.keys() == RECORD.keys()
        and all(isinstance(x[field], kind) for field, kind in RECORD.items())
    )


def _write(file: BufferedWriter, header: bytes, leaves: list[Any]) -> None:
    digest = hashlib.sha256(header)
    file.write(header + digest.digest())
    digest.update(digest.digest())
    for leaf in leaves:
        for block in _blocks(leaf):
            little = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
            data = little.reshape(-1).view(np.uint8).data  # bfloat16 has no buffer protocol
            digest.update(data)
            file.write(data)
    file.write(digest.digest())


def _blocks(array: Any) -> Iterator[Any]:
    """Cut `array` into slices of at most BLOCK bytes, in C order, so that it is never copied whole.

    An array on several devices is not cut: indexing it would need their mesh.
    """
    axis, row = -1, array.dtype.itemsize * math.prod(array.shape)
    if row <= BLOCK or (isinstance(array, jax.Array) and len(array.devices()) > 1):
        yield array
        return
    while row > BLOCK:  # until one index into `axis` takes at most a block
        axis += 1
        row //= array.shape[axis]
    for index in np.ndindex(array.shape[:axis]):
        for start in range(0, array.shape[axis], BLOCK // row):
            yield array[(*index, slice(start, start + BLOCK // row))]


def _read_header(file: BufferedReader) -> tuple[dict[str, Any], Any]:
    """Return the verified header and the digest of everything up to the leaves."""
    found = os.fstat(file.fileno()).st_size
    first = file.readline(2 * len(MAGIC))
    version = re.fullmatch(MAGIC + rb" (\d+)\n", first)
    if version is None:
        raise ValueError("not a memrl_jax checkpoint")
    if int(version[1]) != VERSION:
        raise ValueError(f"checkpoint version {int(version[1])} is unknown, this reads {VERSION}")
    size = file.read(8)
    length = int.from_bytes(size, "little")
    leaves_start = len(first) + 8 + length + CHECKSUM
    if found < leaves_start:
        raise ValueError(f"truncated, expected at least {leaves_start} bytes, found {found}")
    text = file.read(min(length, HEADER_LIMIT))
    digest = hashlib.sha256(first + size + text)
    checksum = file.read(CHECKSUM)
    if checksum != digest.digest():
        raise ValueError("checksum mismatch, the header is damaged")
    digest.update(checksum)
    header = _decode(text)
    expected = leaves_start + sum(record["length"] for record in header["leaves"]) + CHECKSUM
    if found != expected:
        problem = "truncated" if found < expected else "too long"
        raise ValueError(f"{problem}, expected {expected} bytes, found {found}")
    return header, digest


def _read(file: BufferedReader, digest: Any, record: dict[str, Any]) -> np.ndarray:
    """Read one leaf and add its bytes to the digest."""
    array = np.empty(record["shape"], np.dtype(record["dtype"]).newbyteorder("<"))
    data = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        file.readinto(block)
        digest.update(block)
    return array


def _difference(stored: list[dict[str, Any]], expected: list[dict[str, Any]]) -> str:
    """Say in one line how the leaves in the file differ from the expected ones."""
    have, want = (Counter(record["leaf"] for record in records) for records in (stored, expected))
    if have != want:
        lists = {"missing": list(want - have), "unexpected": list(have - want)}
        parts = [f"{what} leaves ({len(x)}): {', '.join(x[:3])}" for what, x in lists.items() if x]
        return "; ".join(parts)
    field, old, new = next(
        (field, old, new)
        for old, new in zip(stored, expected, strict=True)
        for field in new
        if old[field] != new[field]
    )
    return f"{field} of leaf {new['leaf']} is {old[field]} in the file, {new[field]} expected"
