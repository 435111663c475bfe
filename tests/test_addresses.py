"""Pictures of what memories address, still and moving."""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from memrl_jax import plot
from memrl_jax.plot.addresses import by_step
from memrl_jax.plot.film import drawing
from memrl_jax.plot.stage import spans, stage
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
        (np.zeros((T, 0, M)), None, r"attention: shape \(12, 0, 4\) is not \[T, hops, M\]"),
        (np.zeros((T, 1, M), complex), None, "attention: complex128 is not a type of real numbers"),
        ([[[1.0]], [[1.0, 2.0]]], None, "attention: rows of different lengths, or no array at all"),
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
    # The last frame has a say in which 256 colours there are.
    same = [np.abs(a - b).max() < 30 for a, b in zip(*films, strict=True)]
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


class Place(NamedTuple):
    room: Any
    speed: Any


def an_adventure(steps: int = 2, scale: float = 1.0) -> Episode:
    """An episode with an observation of many kinds."""
    rng = np.random.default_rng(4)
    seen = {
        "pri$e$": rng.random((steps, 4, 4, 3)),
        "bag": scale * rng.normal(size=(steps, 107)),
        "place": Place(rng.integers(5, size=steps), scale * rng.normal(size=(steps, 3))),
    }
    episode = an_episode(steps=steps, write=scale * weights(steps, 1, SLOTS))
    record = episode.record | {"q": scale * episode.record["q"]}
    return episode._replace(observation=seen, record=record)


def test_every_part_of_an_observation_has_a_panel() -> None:
    episode = an_adventure()
    figure, shows = stage(episode, "", spans([episode]))
    panels = {axes.get_title("left"): axes for axes in figure.axes}
    last = "action values, and the action taken"
    assert [*panels] == ["write", last, "bag", "place.room", "place.speed", "pri$e$"]
    for show in shows:
        show(1)

    def bars(name: str) -> list[Any]:
        drawn: list[Any] = [*panels[name].patches]
        return [bar.get_height() for bar in drawn]

    place = episode.observation["place"]
    assert bars("place.room") == [i == place.room[1] for i in range(place.room.max() + 1)]
    np.testing.assert_allclose(bars("place.speed"), place.speed[1])
    bag = shown(panels["bag"])  # rows of 40
    assert bag.shape == (3, 40)
    np.testing.assert_allclose(bag.ravel()[:107], episode.observation["bag"][1])
    assert np.isnan(bag.ravel()[107:]).all()
    image: Any = panels["pri$e$"].images[0]
    np.testing.assert_allclose(image.get_array(), episode.observation["pri$e$"][1])
    written: list[Any] = figure.findobj(lambda x: isinstance(x, Text) and "$" in x.get_text())
    assert written and not any(text.get_parse_math() for text in written)


def test_episodes_of_a_film_share_their_scales() -> None:
    episodes = [an_adventure(), an_adventure(3, scale=5.0)]
    scales = []
    for episode in episodes:
        axes = stage(episode, "", spans(episodes))[0].axes
        bars = [x.get_ylim() for x in axes if x.patches]
        scales.append([*bars, *(m.get_clim() for x in axes for m in x.collections)])
    assert scales[0] == scales[1] and len(scales[0]) == 2 + 3
    alone = stage(episodes[0], "", spans(episodes[:1]))[0].axes
    assert [x.get_ylim() for x in alone if x.patches][1] != scales[0][1]


def test_the_colours_of_a_film_are_those_drawn(tmp_path: Path) -> None:
    """Colour bars, cells and pictures; 256 colours made for each frame alone are 40 apart."""
    record = {"attention": weights(3, 1, M), "write": weights(3, 1, SLOTS)}
    episodes = [an_episode((4, 4, 3), 3, **record)]
    plot.film(episodes, tmp_path / "film.gif")
    drawn = drawing(*stage(episodes[0], "", spans(episodes)))
    with Image.open(tmp_path / "film.gif") as film:
        for t in range(3):
            film.seek(t)
            got = np.asarray(film.convert("RGB"), np.int32)
            assert np.abs(got - drawn(t)).max() <= 20


def test_without_action_values_the_actions_are_shown() -> None:
    episode = an_episode(steps=3)
    episode = episode._replace(record={})
    figure, _ = stage(episode, "", spans([episode]))
    axes = figure.axes[0]
    assert axes.get_title("left") == "action taken"
    np.testing.assert_array_equal(shown(axes).argmax(axis=0), episode.action)


def spoiled(**change: Any) -> list[Episode]:
    return [an_episode(steps=2)._replace(**change)]


@pytest.mark.parametrize(
    ("episodes", "name", "message"),
    [
        ([], "film.gif", "episodes: there are none"),
        (spoiled(action=np.zeros(0, int)), "film.gif", r"episodes: 0, action: int64 \(0,\) is not"),
        (spoiled(action=np.zeros(2)), "film.gif", "episodes: 0, action: float64"),
        (
            spoiled(action=np.array([0, 10**9])),
            "film.gif",
            r"action: 0 to 1000000000 not in \[0, 2",
        ),
        (spoiled(action=np.array([0, 10**9]), record={}), "film.gif", r"not in \[0, 1000\)"),
        (spoiled(reward=np.zeros(3)), "film.gif", r"0, reward: shape \(3,\) is not \[T = 2, ...\]"),
        (spoiled(reward=np.array([0, nan])), "film.gif", "0, reward: 1 of 2 values are NaN"),
        (
            spoiled(reward=np.zeros(2, complex)),
            "film.gif",
            "0, reward: complex128 is not a type of",
        ),
        (
            spoiled(observation=np.full((2, 1), nan)),
            "film.gif",
            "observation: not all of it is fin",
        ),
        (spoiled(observation=np.zeros((2, 1), complex)), "film.gif", "observation: complex128"),
        (spoiled(observation={"a": np.zeros((3, 1))}), "film.gif", r"0, a: shape \(3, 1\) is not"),
        (spoiled(record={"q": np.zeros(2)}), "film.gif", r"0, q: shape \(2,\) is not \[T, A\]"),
        (
            spoiled(record={"read": np.zeros((2, 0, 3))}),
            "film.gif",
            "read: shape .* holds no value",
        ),
        ([*spoiled(), *spoiled(record={})], "film.gif", "episodes: their records do not have"),
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
        (np.zeros((2, 4), complex), "weights: complex128 is not a type of real numbers"),
    ],
)
def test_hops_have_to_be_numbers_with_names(drawn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.hops(drawn, ["a", "b", "c", "d"])
