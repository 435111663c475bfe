"""Ways to damage the files of a run, drawn at random."""

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[random.Random, Path], None]  # damages the file at a path

DEEP = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x\ny",
    [],
    [[1]],
    {},
]
TEXTS = [
    "",
    "null",
    "[]",
    "{}",
    "7",
    '"x"',
    DEEP,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    "{" + "9" * 10_000 + "}",
    "9" * 10_000,
    "1e999",
    '{"config": {}, "run": {}, "history": {}}',
    '{"about": {}, "leaves": [{}]}',
    '{"about": [], "leaves": {}}',
]


def bytes_of(change: Callable[[random.Random, bytes], bytes]) -> Damage:
    def damage(draw: random.Random, path: Path) -> None:
        path.write_bytes(change(draw, path.read_bytes()))

    return damage


def flip(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def lengthen(draw: random.Random, data: bytes) -> bytes:
    return data + draw.randbytes(draw.randrange(1, 100))


def overwrite(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + draw.randbytes(min(64, len(data) - at)) + data[at + 64 :]


def move(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(1, len(data))
    return data[at:] + data[:at]


def other(draw: random.Random, data: bytes) -> bytes:
    return draw.choice([b"", b"\x80\xff", b"PK\3\4" + data, draw.randbytes(len(data))])


def directory(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(draw: random.Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def edit(draw: random.Random, value: Any) -> Any:
    """Change, rename, add or drop one item somewhere in a JSON value."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(VALUES)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        new = [] if draw.random() < 0.2 else [edit(draw, value[at])]
        return value[:at] + new + value[at + 1 :]
    name, how = draw.choice(list(value)), draw.random()
    rest = {k: x for k, x in value.items() if k != name}
    if how < 0.1:
        return rest
    if how < 0.2:
        return value | {draw.choice(["", "x", "a\nb", "step"]): draw.choice(VALUES)}
    return value | {name: edit(draw, value[name])} if how < 0.9 else rest | {name + "s": 1}


def rewrite(draw: random.Random, text: bytes) -> bytes:
    """Return other JSON, or text that is nearly JSON."""
    if draw.random() < 0.3:
        return draw.choice(TEXTS).encode()
    edited = json.dumps(edit(draw, json.loads(text))).encode()
    return edited if draw.random() < 0.9 else edited.replace(b'"', b"\xff", 1)


def rewrite_lines(draw: random.Random, text: bytes) -> bytes:
    """Drop, repeat or rewrite one line of many."""
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    new = draw.choice([[], [lines[at]] * 2, [rewrite(draw, lines[at]) + b"\n"]])
    return b"".join(lines[:at] + new + lines[at + 1 :])


def with_header(data: bytes, text: bytes) -> bytes:
    """Give a checkpoint another header, with the right checksums."""
    first = data.index(b"\n") + 1
    length = int.from_bytes(data[first : first + 8], "little")
    leaves = data[first + 8 + length + 32 : -32]
    head = data[:first] + len(text).to_bytes(8, "little") + text
    body = head + hashlib.sha256(head).digest() + leaves
    return body + hashlib.sha256(body).digest()


def header(data: bytes) -> bytes:
    first = data.index(b"\n") + 1
    return data[first + 8 : first + 8 + int.from_bytes(data[first : first + 8], "little")]


def rewrite_header(draw: random.Random, data: bytes) -> bytes:
    return with_header(data, rewrite(draw, header(data)))


def of_another_seed(draw: random.Random, data: bytes) -> bytes:
    """Make a checkpoint claim to be of a run with another setting."""
    said = json.loads(header(data))
    said["about"]["settings"] |= draw.choice([{"seed": 7}, {"learning_rate": 0.5}])
    return with_header(data, json.dumps(said).encode())


def the_one_before(draw: random.Random, path: Path) -> None:
    before = sorted(path.parent.glob("*.ckpt"))[-2]
    shutil.copy(before, path)


def rewrite_metrics(draw: random.Random, data: bytes) -> bytes:
    """Return metrics with arrays missing, added or changed."""
    with np.load(io.BytesIO(data)) as arrays:
        past = dict(arrays)
    name = draw.choice(list(past))
    x = past[name]
    odd: list[Any] = [
        x[..., :-1],
        x[:1],
        x.T,
        x.astype(str),
        x.astype(complex),
        x.astype(np.float16) + 1,
        x[..., ::-1],
        np.array([None]),
        np.zeros((0, 0)),
        np.float32(1),
    ]
    new: dict[str, Any] = draw.choice(
        [
            {k: v for k, v in past.items() if k != name},
            past | {"": x},
            past | {"evaluation_": x},
            past | {"a\nb": odd[draw.randrange(len(odd))]},
            {k: v[..., : len(v) // 2] for k, v in past.items()},
            {},
            *[past | {name: value} for value in odd],
        ]
    )
    out = io.BytesIO()
    np.savez(out, **new)
    return out.getvalue()


RAW = [*map(bytes_of, (flip, cut, lengthen, overwrite, move, other)), directory, fifo]
CHECKPOINT: list[Damage] = [
    *RAW,
    *(bytes_of(rewrite_header) for _ in range(6)),
    bytes_of(of_another_seed),
    the_one_before,
]
OTHERS: dict[str, list[Damage]] = {
    "config.json": [*RAW, *(bytes_of(rewrite) for _ in range(6))],
    "versions.json": [*RAW, *(bytes_of(rewrite) for _ in range(6))],
    "metrics.npz": [*RAW, *(bytes_of(rewrite_metrics) for _ in range(6))],
    "progress.jsonl": [*RAW, *(bytes_of(rewrite_lines) for _ in range(6))],
    "metrics.csv": RAW,
}


def of_checkpoints(draw: random.Random, count: int) -> Iterator[Damage]:
    """Damage the newest checkpoint of the run at a path, and sometimes the one before it too."""

    def both(first: Damage, second: Damage) -> Damage:
        def damage(draw: random.Random, run: Path) -> None:
            before, newest = sorted((run / "checkpoints").glob("*.ckpt"))[-2:]
            first(draw, newest)
            second(draw, before)

        return damage

    for _ in range(count):
        second: Damage = draw.choice(RAW) if draw.random() < 0.2 else lambda draw, path: None
        yield both(draw.choice(CHECKPOINT), second)


def of_others(draw: random.Random, count: int) -> Iterator[Damage]:
    """Damage one of the other files of the run at a path."""

    def at(name: str, first: Damage) -> Damage:
        return lambda draw, run: first(draw, run / name)

    for i in range(count):
        name = list(OTHERS)[i % len(OTHERS)]
        yield at(name, draw.choice(OTHERS[name]))
