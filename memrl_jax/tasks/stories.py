"""Stories in the style of five bAbI tasks, with other words; Weston et al. (2015)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from memrl_jax.checks import known

Sentence = tuple[str, ...]
Rng = np.random.Generator

PEOPLE = ("anna", "boris", "clara", "dev")
PLACES = ("attic", "cellar", "library", "market", "stable", "tower")
THINGS = ("lamp", "letter", "violin")
GOES = ("walks to", "runs to", "hurries to")
TAKES = ("takes", "fetches", "lifts")
DROPS = ("drops", "loses", "leaves")
SIDES = {"north": "south", "south": "north", "east": "west", "west": "east"}
BEASTS = ("fox", "owl", "snake", "toad")
NAMES = ("bella", "max", "nero", "pip")


class Told(NamedTuple):
    """A question and the story before it."""

    story: tuple[Sentence, ...]
    question: Sentence
    answer: str
    support: tuple[int, ...]  # indices of sentences in the story


def tell(task: int, rng: Rng) -> Told:
    """Tell a story in the style of `task` and ask about it; raises ValueError for another task."""
    known("task", str(task), map(str, WRITERS))
    return WRITERS[task](rng)


def _pick(rng: Rng, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def _said(text: str) -> Sentence:
    return tuple(text.split())


def _moves(rng: Rng, most: int) -> tuple[list[Sentence], dict[str, tuple[int, str]]]:
    """Let people go from place to place; also return when and where each went last."""
    story: list[Sentence] = []
    last: dict[str, tuple[int, str]] = {}
    for i in range(rng.integers(2, most + 1)):
        who, where = _pick(rng, PEOPLE), _pick(rng, PLACES)
        story.append(_said(f"{who} {_pick(rng, GOES)} the {where}"))
        last[who] = i, where
    return story, last


def _one_fact(rng: Rng) -> Told:
    story, last = _moves(rng, 10)
    who = _pick(rng, tuple(last))
    i, where = last[who]
    return Told(tuple(story), _said(f"where is {who}"), where, (i,))


def _yes_or_no(rng: Rng) -> Told:
    story, last = _moves(rng, 10)
    who = _pick(rng, tuple(last))
    i, where = last[who]
    other = _pick(rng, tuple(place for place in PLACES if place != where))
    asked, answer = ((where, "yes"), (other, "no"))[rng.integers(2)]
    return Told(tuple(story), _said(f"is {who} in the {asked}"), answer, (i,))


def _two_facts(rng: Rng) -> Told:
    """Somebody takes a thing, carries it about and may drop it; where is it?

    Others come and go, but never with a thing.
    """
    who, *others = rng.permutation(PEOPLE)
    thing = _pick(rng, THINGS)
    places = [_pick(rng, PLACES) for _ in range(rng.integers(2, 6))]
    dropped = bool(rng.integers(2))
    final = len(places) - 1 - dropped  # the move to the place where the thing stays
    plot = [(f"{who} {_pick(rng, GOES)} the {x}", i == final) for i, x in enumerate(places)]
    if dropped:
        plot.insert(final + 1, (f"{who} {_pick(rng, DROPS)} the {thing}", True))
    plot.insert(rng.integers(final + 1), (f"{who} {_pick(rng, TAKES)} the {thing}", not dropped))
    for _ in range(rng.integers(1, 6)):
        aside = f"{_pick(rng, tuple(others))} {_pick(rng, GOES)} the {_pick(rng, PLACES)}"
        plot.insert(rng.integers(len(plot) + 1), (aside, False))
    story, support = zip(*plot, strict=True)
    return Told(
        tuple(map(_said, story)),
        _said(f"where is the {thing}"),
        places[final],
        tuple(np.flatnonzero(support)),
    )


def _relation(rng: Rng) -> Told:
    """Tell of three places in a row, then ask on either side of a relation."""
    a, b, c = rng.permutation(PLACES)[:3]
    side = _pick(rng, tuple(SIDES))
    first, second = (a, side, b), (b, side, c)  # e.g. a is north of b, and b of c
    facts = [(x, s, y) if rng.integers(2) else (y, SIDES[s], x) for x, s, y in (first, second)]
    order = rng.permutation(2)
    story = tuple(_said(f"the {x} is {s} of the {y}") for x, s, y in (facts[i] for i in order))
    used = int(rng.integers(2))
    x, s, y = (first, second)[used]
    question, answer = (
        (f"what is {s} of the {y}", x),
        (f"what is the {x} {s} of", y),
    )[rng.integers(2)]
    return Told(story, _said(question), str(answer), (int(np.flatnonzero(order == used)[0]),))


def _deduction(rng: Rng) -> Told:
    """Every kind fears another, every name is of a kind; whom does that one fear?"""
    feared = {kind: _pick(rng, tuple(b for b in BEASTS if b != kind)) for kind in BEASTS}
    kinds = {name: _pick(rng, BEASTS) for name in NAMES}
    rules = [f"every {kind} fears the {other}" for kind, other in feared.items()]
    story = rules + [f"{name} is a {kind}" for name, kind in kinds.items()]
    order = list(rng.permutation(len(story)))
    name = _pick(rng, NAMES)
    kind = kinds[name]
    support = len(rules) + NAMES.index(name), BEASTS.index(kind)
    told = tuple(_said(story[i]) for i in order)
    found = tuple(order.index(i) for i in support)
    return Told(told, _said(f"whom does {name} fear"), feared[kind], found)


WRITERS: dict[int, Callable[[Rng], Told]] = {
    1: _one_fact,
    2: _two_facts,
    4: _relation,
    6: _yes_or_no,
    15: _deduction,
}
