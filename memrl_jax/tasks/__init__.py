"""Supervised probes of memory, and a small trainer for them."""

from collections.abc import Callable

from memrl_jax.tasks.base import Example, Task
from memrl_jax.tasks.copying import copy, repeat_copy, selective_copying
from memrl_jax.tasks.recall import associative_recall, multi_query_recall, remember_first
from memrl_jax.tasks.train import Probe, ProbeState, accuracy, make_probe, train

TASKS: dict[str, Callable[..., Task]] = {
    "remember_first": remember_first,
    "copy": copy,
    "repeat_copy": repeat_copy,
    "selective_copying": selective_copying,
    "associative_recall": associative_recall,
    "multi_query_recall": multi_query_recall,
}

__all__ = [
    "TASKS",
    "Example",
    "Probe",
    "ProbeState",
    "Task",
    "accuracy",
    "associative_recall",
    "copy",
    "make_probe",
    "multi_query_recall",
    "remember_first",
    "repeat_copy",
    "selective_copying",
    "train",
]
