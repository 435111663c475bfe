"""What the processes of one run agree on; with one process, that is what it says.

The first process writes the run's folder and speaks. All of them call these functions alike.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

Say = Callable[[str], None]


def leads() -> bool:
    """Tell whether this is the first process."""
    return jax.process_index() == 0


def gathered(x: Any) -> np.ndarray:
    """Return what every process gives, [processes, ...], of arrays or numbers [...]."""
    return np.asarray(multihost_utils.process_allgather(np.asarray(x)))


def largest(x: float) -> float:
    """Return the largest number that a process gives, in float32 if there are several."""
    return float(gathered(np.float32(x)).max()) if jax.process_count() > 1 else x


def by_first(do: Callable[[], Any]) -> Any:
    """Let the first process alone do something, for which the others wait; return what it returns.

    Where there are several, that is what JSON keeps of it.
    """
    if jax.process_count() == 1:
        return do()
    text = np.frombuffer(json.dumps(do()).encode() if leads() else b"", np.uint8)
    length = int(gathered(np.int32(len(text)))[0])
    return json.loads(gathered(np.pad(text, (0, length - len(text))))[0].tobytes())


def check_same(what: str, given: Any) -> None:
    """Raise ValueError unless `given`, which JSON can tell, is the same in all processes."""
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).digest()
    every = gathered(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero(np.any(every != every[0], axis=1))
    if len(others):
        raise ValueError(f"processes: process {others[0]} has other {what} than process 0")
