"""Settings as data: the base class of all configs, and the parts that several agents share."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from flax import struct
from flax.core import FrozenDict

from memrl_jax import checks


def static(default: Any) -> Any:
    """Declare a static field: another value recompiles the program."""
    return struct.field(pytree_node=False, default=default)


class Settings(struct.PyTreeNode):
    """A config, or a part of one. Floats are pytree leaves, which may be traced and vmapped over.

    The string under a field is its help text. Configs nest by the component that reads them; field
    names are unique within a whole config, and `config.replace(field=value)` finds nested ones too.
    """

    def __post_init__(self) -> None:
        """Freeze mappings and lists, e.g. from JSON: static fields must be hashable for jit."""
        for field in fields(self):
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))

    def __init_subclass__(cls, **options: Any) -> None:
        """Give every config this `replace` instead of flax's."""
        super().__init_subclass__(**options)
        cls.replace = _replace  # type: ignore[assignment, method-assign]


def _replace(settings: Any, **changes: Any) -> Any:
    """Return a copy with changed fields, of its own or of the parts nested in it.

    Raises ValueError for an unknown field, and suggests the nearest name.
    """
    within = dict(nested(settings))
    own = [f.name for f in fields(settings)]
    for name in changes.keys() - set(own):
        checks.known(type(settings).__name__, name, dict.fromkeys([*own, *named(settings)]))
    now = {name: x for name, x in changes.items() if name in own}
    for field, part in within.items():
        inner = {name: x for name, x in changes.items() if name not in own and name in named(part)}
        if inner:
            now[field] = now.get(field, part).replace(**inner)
    return replace(settings, **now)


def nested(settings: Settings) -> list[tuple[str, Settings]]:
    """Return the settings directly within settings, as (field name, part)."""
    given = ((f.name, getattr(settings, f.name)) for f in fields(settings))
    return [(name, x) for name, x in given if isinstance(x, Settings)]


def named(settings: Settings) -> dict[str, Any]:
    """Return all field values by name, with the fields of nested parts in place of the parts."""

    def pairs(settings: Settings) -> Iterator[tuple[str, Any]]:
        for field in fields(settings):
            x = getattr(settings, field.name)
            if isinstance(x, Settings):
                yield from pairs(x)
            else:
                yield field.name, x

    return dict(pairs(settings))


def traced(settings: Settings) -> Iterator[str]:
    """Yield the names of settings, nested ones too, that may be traced: those that are floats."""
    for field in fields(settings):
        x = getattr(settings, field.name)
        if isinstance(x, Settings):
            yield from traced(x)
        elif field.metadata.get("pytree_node", True):
            yield field.name


def check(settings: Settings) -> None:
    """Raise ValueError for a field, nested or not, whose value does not fit its type hint."""
    checks.fields(settings)
    for _, part in nested(settings):
        check(part)


def frozen(value: Any) -> Any:
    """Return `value` with mappings as FrozenDict and lists as tuples, which are hashable."""
    if isinstance(value, Mapping):
        return FrozenDict({k: frozen(x) for k, x in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list) else value


class LayersConfig(Settings):
    """Options of the hidden layers in the encoder and in the heads, but not in the memory."""

    layer_norm: bool = static(False)
    """Normalise every hidden layer over its features before the ReLU (Ba et al. 2016)."""
    orthogonal: bool = static(False)
    """Begin with orthogonal kernels, of scale sqrt(2), for values 1, for policies 0.01 (Huang et
    al. 2022), instead of LeCun's normal ones."""


class BodyConfig(Settings):
    """What comes before a network's head: an encoder of timesteps and a memory."""

    memory: str = static("none")
    """Memory of the network; none is feed-forward. One of your own is module:name."""
    memory_args: Mapping[str, Any] = static(FrozenDict())
    """Options of the memory, as name=value."""
    encoder: tuple[int, ...] = static((120,))
    """Widths of the dense layers before the memory."""
    convolutions: str | tuple[tuple[int, int, int, int], ...] = static("small")
    """Convolutions of images: small (16 features, 3 x 3), nature (Mnih et al. 2015), or the layers,
    each [features, kernel, stride, padding]."""
    channels: int | None = static(-1)
    """Which axis of an observation with three axes has an image's channels: -1 the last, 0 the
    first; None sees such observations as vectors."""
    previous_action: bool = static(False)
    """Show the previous action to the network."""
    previous_reward: bool = static(False)
    """Show the previous reward to the network."""
    layers: LayersConfig = LayersConfig()
    """How hidden layers are made."""


class ReplayConfig(Settings):
    """What experience is kept, and how it is sampled."""

    replay: str = static("uniform")
    """Replay memory that windows are drawn from."""
    capacity: int = static(10_000)
    """Timesteps kept, over all environments."""
    batch_size: int = static(128)
    """Windows in a batch."""
    window: int = static(1)
    """Actions in a window that are learned from: 1 learns from transitions, more from sequences."""
    burn_in: int = static(0)
    """Actions before each window that only bring the memory up to date."""
    stored_state: bool = static(False)
    """Begin where rollouts began, from the memory stored there; otherwise anywhere, from a fresh
    memory."""
    learning_starts: int = static(10_000)
    """Timesteps to collect before the first update."""
    priority_exponent: float = 0.6
    """Prioritized replay: draw in proportion to priority to this power; 0 is uniform."""
    priority_mix: float = 0.9
    """Prioritized replay: share of the largest error in a window's priority, beside the mean."""
    importance_start: float = 0.4
    """Prioritized replay: power of the weights that correct the bias it makes, at first."""
    importance_end: float = 1.0
    """Prioritized replay: this power in the end; 1 corrects all of it."""
    importance_updates: float = 100_000.0
    """Prioritized replay: updates over which it goes from the first to the last, linearly."""
