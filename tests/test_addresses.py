"""Pictures of what memories address, still and moving."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from memrl_jax import plot
from memrl_jax.plot.addresses import by_step
from memrl_jax.rollout import Episode

T, SLOTS, WIDTH, M = 12, 5, 3, 4
nan = float("nan")


def weights(*shape: int, seed: int = 0) -> Any:
    drawn = np.random.default_rng(seed).random(shape)
    return drawn / drawn.sum(axis=-1, keepdims=True)


def a_record() -> dict[str, Any]:
    return {
        "write": weights(T, 1, SLOTS),
        "read": weights(T, 2, SLOTS, seed=1),
        "memory": np.random.default_rng(2).normal(size=(T, SLOTS, WIDTH)),
    }


def an_episode(seen: tuple[int, ...] = (3,), steps: int = T, **record: Any) -> Episode:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(steps, 2))
    reward = np.arange(steps, dtype=np.float32)
    return Episode(
        rng.random((steps, *seen)), values.argmax(axis=1), reward, {"q": values, **record}
    )


def shown(axes: Any) -> Any:
    return np.ma.filled(axes.collections[0].get_array(), nan)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def frames(path: Path) -> list[Any]:
    pictures = []
    with Image.open(path) as film:
        for frame in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(frame)
            pictures.append(np.asarray(film.convert("L"), np.int16))
    return pictures


def test_addresses_shows_every_head_and_the_last_memory(tmp_path: Path) -> None:
    record, path = a_record(), tmp_path / "addresses.png"
    figure = plot.addresses(record, path, title="A title")
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    assert {*panels} == {"write: slot", "read 0: slot", "read 1: slot", "slot"}
    np.testing.assert_array_equal(shown(panels["write: slot"]), record["write"][:, 0].T)
    for i in range(2):
        np.testing.assert_array_equal(shown(panels[f"read {i}: slot"]), record["read"][:, i].T)
    np.testing.assert_array_equal(shown(panels["slot"]), record["memory"][-1])
    assert {panels[name].get_xlim() for name in panels if name != "slot"} == {(-0.5, T - 0.5)}
    assert panels["read 1: slot"].get_xlabel() == "step"
    assert panels["slot"].get_title("left") == "memory at the end"
    assert size(path)[0] == 1200


def test_addresses_needs_neither_writes_nor_contents() -> None:
    (axes,) = plot.addresses({"read": weights(T, 1, SLOTS)}).axes
    assert axes.get_ylabel() == "read: slot"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read": weights(T, SLOTS)}, r"read: shape \(12, 5\) is not \[T, heads, slots\]"),
        ({"memory": weights(SLOTS, 2)}, r"memory: shape \(5, 2\) is not \[T, slots, width\]"),
        ({"read": weights(T - 1, 1, SLOTS)}, r"record: steps \[11, 12\] do not agree"),
        ({"write": np.full((T, 1, SLOTS), nan)}, "write: not all of step 0 is finite"),
    ],
)
def test_addresses_names_the_wrong_array(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.addresses(a_record() | change)


def test_addresses_wants_addresses() -> None:
    with pytest.raises(ValueError, match=r"^record: neither 'write' nor 'read' is in \['q'\]$"):
        plot.addresses({"q": [1.0]})


def test_weights_of_the_last_steps_are_put_where_these_are() -> None:
    starts = np.arange(T) == 7
    last = weights(T, M)
    table = by_step(last, starts)
    for t in range(T):
        begun = 7 if t >= 7 else 0
        for past in range(T):
            there = max(begun, t - M) <= past < t
            expected = last[t, M - (t - past)] if there else nan
            np.testing.assert_equal(table[t, past], expected)


@pytest.mark.parametrize("hops", [1, 2, 4])
def test_attention_shows_a_triangle_for_every_hop(hops: int, tmp_path: Path) -> None:
    last, path = weights(T, hops, M), tmp_path / "attention.png"
    panels = plot.attention(last, path, title="A title").axes
    names = ["attention", *(f"attention, hop {i}" for i in range(hops))]
    assert [axes.get_title("left") for axes in panels] == (names[1:] if hops > 1 else names[:1])
    for i, axes in enumerate(panels):
        np.testing.assert_array_equal(shown(axes), by_step(last[:, i], np.zeros(T, bool)))
    assert panels[0].get_ylabel() == "step"
    assert size(path)[0] == 1200


@pytest.mark.parametrize(
    ("last", "starts", "message"),
    [
        (weights(T, M), None, r"attention: shape \(12, 4\) is not \[T, hops, M\]"),
        (weights(T, 1, M), [True], r"starts: shape \(1,\) is not \[T\] with T = 12"),
        (np.full((T, 1, M), np.inf), None, "attention: not all of step 0 is finite"),
    ],
)
def test_attention_names_the_wrong_array(last: Any, starts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.attention(last, starts=starts)


@pytest.mark.parametrize("seen", [(3,), (), (6, 6, 3)])
def test_a_film_has_a_frame_for_every_step(seen: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    told: list[int] = []
    episodes = [an_episode(seen, steps, attention=weights(steps, 2, M)) for steps in (3, 1)]
    plot.film(episodes, path, report=told.append)
    assert told == [1, 2, 3, 4]
    pictures = frames(path)
    assert len(pictures) == 4 and size(path)[0] == 800
    for before, after in pairwise(pictures):
        assert (np.abs(after - before) > 50).sum() > 20


def test_a_film_shows_no_later_action(tmp_path: Path) -> None:
    films = []
    for last in (0, 1):
        episode = an_episode(steps=3, write=weights(3, 1, SLOTS))
        episode.action[2] = last
        plot.film([episode], tmp_path / "film.gif")
        films.append(frames(tmp_path / "film.gif"))
    same = [np.array_equal(*pair) for pair in zip(*films, strict=True)]
    assert same == [True, True, False]


def test_without_addresses_the_film_is_short(tmp_path: Path) -> None:
    heights = []
    for record in ({}, {"read": weights(2, 2, SLOTS)}):
        plot.film([an_episode(steps=2, **record)], tmp_path / "film.gif")
        heights.append(size(tmp_path / "film.gif")[1])
    assert heights[0] < heights[1]


def test_a_film_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    path.write_bytes(b"old")

    def full(frames: int) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        plot.film([an_episode(steps=2)], path, report=full)
    assert [x.name for x in tmp_path.iterdir()] == ["film.gif"] and path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("episodes", "name", "message"),
    [
        ([], "film.gif", "episodes: there are none"),
        ([an_episode(steps=1)], "film.mp4", r"path: '.*film\.mp4' does not end in \.gif"),
    ],
)
def test_a_film_wants_episodes_and_a_gif(
    episodes: list[Episode], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plot.film(episodes, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_hops_name_what_they_attend_to(tmp_path: Path) -> None:
    drawn = weights(3, 4)
    figure = plot.hops(drawn, ["a", "b", "c", "d"], tmp_path / "hops.png", title="where is a?")
    axes = figure.axes[0]
    np.testing.assert_allclose(shown(axes).reshape(4, 3), drawn.T)
    assert [x.get_text() for x in axes.get_yticklabels()] == ["a", "b", "c", "d"]
    with Image.open(tmp_path / "hops.png") as image:
        assert image.size[0] == 1200


@pytest.mark.parametrize(
    "drawn, message",
    [
        (weights(3, 5), "labels: 4 are not one for each of 5 weights"),
        (weights(3), r"weights: shape \(3,\) is not \[hops, M\]"),
        (np.full((2, 4), nan), "weights: not all of it is finite"),
    ],
)
def test_hops_have_to_be_numbers_with_names(drawn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.hops(drawn, ["a", "b", "c", "d"])
