"""States of POPGym's tasks as text: everything, also what an agent does not see."""

from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from memrl_jax.environments.popgym.bandit import Arms
from memrl_jax.environments.popgym.boards import Field, Sea
from memrl_jax.environments.popgym.cards import RANKS
from memrl_jax.environments.popgym.concentration import UNSEEN, Table
from memrl_jax.environments.popgym.control import Motion
from memrl_jax.environments.popgym.counting import Counts, Guess
from memrl_jax.environments.popgym.repeat import First, Seen

SUITS = np.array([*"♠♥♦♣"])
RANK_NAMES = np.array(["A", *"23456789", "10", *"JQK"])
ROW = 13  # cards in a row


class Board(NamedTuple):
    """One part of a state: a title and rows of cells."""

    title: str
    cells: np.ndarray  # [rows, columns] str


def text(state: Any) -> str:
    """Return a state of one of POPGym's tasks as lines of text, in monospaced columns.

    Raises TypeError for a state of anything else.
    """
    parts = []
    for board in boards(state):
        wide = max(map(len, board.cells.ravel()), default=1)
        rows = [" ".join(cell.rjust(wide) for cell in row).rstrip() for row in board.cells]
        parts.append("\n".join([board.title, *(f"  {row}" for row in rows)]))
    return "\n".join(parts)


@singledispatch
def boards(state: Any) -> list[Board]:
    """Return the parts of a state that are shown."""
    raise TypeError(f"state: {type(state).__name__} is no state of a task of POPGym")


def row(title: str, *rows: Any) -> Board:
    """Make a board of rows of equal length, of anything."""
    return Board(title, np.array([[str(x) for x in cells] for cells in rows]))


def dealt(title: str, cells: Any) -> Board:
    """Lay cards out in rows of `ROW`, the last of which is filled with blanks."""
    cells = [str(x) for x in cells]
    blank = [""] * (-len(cells) % ROW)
    return Board(title, np.array(cells + blank).reshape(-1, ROW))


@boards.register
def _(state: First) -> list[Board]:
    return [
        row("suit of the first card", [SUITS[state.first]]),
        row("cards left in the deck", SUITS, np.asarray(state.left)),
    ]


@boards.register
def _(state: Seen) -> list[Board]:
    shown = np.asarray(state.suits)[: int(state.time) + 1]
    return [
        dealt("cards shown so far, in order", SUITS[shown]),
        row("cards left in the deck", SUITS, np.asarray(state.left)),
    ]


@boards.register
def _(state: Counts) -> list[Board]:
    kinds = np.arange(len(state.shown))
    return [
        row("kind asked for", [int(state.query)]),
        row("cards left of each kind: to be counted, and to ask for", kinds, *state[:2]),
    ]


@boards.register
def _(state: Guess) -> list[Board]:
    return [
        row("card shown", [RANK_NAMES[state.rank]]),
        row("cards left in the deck", RANK_NAMES[:RANKS], np.asarray(state.left)),
    ]


@boards.register
def _(state: Arms) -> list[Board]:
    chance = np.asarray(state.chance)
    return [row("chance that an arm pays", np.arange(len(chance)), [f"{x:.2f}" for x in chance])]


@boards.register
def _(state: Sea) -> list[Board]:
    shot = np.asarray(state.shot)
    ship = np.zeros_like(shot)
    for top, left, bottom, right in np.asarray(state.ships):
        ship[top : bottom + 1, left : right + 1] = True
    cells = np.where(ship, np.where(shot, "X", "S"), np.where(shot, "o", "."))
    return [Board("S ship, X hit, o missed", cells)]


@boards.register
def _(state: Table) -> list[Board]:
    kind, up = np.asarray(state.kind), np.asarray(state.up)
    known = np.where(up, kind.astype(str), [f"({k})" for k in kind])
    names = np.where(kind == UNSEEN, "?", known)
    if state.first >= 0:
        names[state.first] = f"[{kind[state.first]}]"
    return [
        dealt("found; (turned back); [turned]; ? never turned", names),
        row("cards left to be drawn, of each kind", np.arange(len(state.left)), state.left),
    ]


@boards.register
def _(state: Field) -> list[Board]:
    size = int(len(state.seen) ** 0.5)
    mine = np.zeros(size**2, bool)
    mine[np.asarray(state.mines)] = True
    around = np.pad(mine.reshape(size, size), 1).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3))
    near = windows.sum(axis=(2, 3))
    cells = np.where(np.asarray(state.seen).reshape(size, size), near.astype(str), ".")
    return [Board("* mine, . covered", np.where(mine.reshape(size, size), "*", cells))]


@boards.register
def _(state: Motion) -> list[Board]:
    names = ["angle", "rate"] if len(state.physics) == 2 else ["x", "speed", "angle", "rate"]
    return [row("motion", names, [f"{x:.3f}" for x in np.asarray(state.physics)])]
