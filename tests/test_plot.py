"""Pictures: what they show, the file they become, and the global state they leave alone."""

import itertools
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from memrl_jax import plot
from memrl_jax.plot.episode import rgb
from memrl_jax.statistics import bootstrap

nan = float("nan")
STEPS = np.arange(0, 1_000_001, 100_000)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def an_episode(steps=20, actions=3):
    rng = np.random.default_rng(0)
    rewards = rng.integers(-1, 2, steps).astype(np.float32)
    return normal(steps, 4), rng.integers(actions, size=steps), rewards


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_writes_a_png_of_the_promised_size(tmp_path):
    path = tmp_path / "curves.png"
    series = {"a label": (STEPS, normal(5, 11))}
    figure = plot.curves(series, path, title="A title", reference={"chance": 0.5})
    assert isinstance(figure, Figure)
    assert png_size(path) == (1200, 750)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_curves_says_what_it_shows():
    series = {"GRU": (STEPS, normal(5, 11)), "none": (STEPS, normal(1, 11))}
    figure = plot.curves(series, title="T-Maze", level=0.9, reference={"chance": 0.5})
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "return")
    assert figure.get_suptitle() == "T-Maze"
    assert legend(axes) == ["GRU (5 seeds)", "none (1 seed)"]
    assert texts(axes) == ["IQM and 90 % bootstrap interval; too narrow with 5 seeds", "chance"]


def test_names_of_heights_do_not_cover_each_other(tmp_path):
    heights = {"random": 0.0, "BEB": 151.9, "greedy": 149.5, "PSRL": 150.0, "all": 218.0}
    figure = plot.curves({"GRU": (STEPS, normal(1, 11))}, tmp_path / "a.png", reference=heights)
    named = [text for text in figure.axes[0].texts if text.get_text() in heights]
    assert len(named) == len(heights)
    boxes = [text.get_window_extent() for text in named]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_one_seed_has_no_interval():
    (axes,) = plot.curves({"GRU": (STEPS, normal(1, 11))}).axes
    assert not axes.collections and texts(axes) == ["1 seed, no interval"]
    (axes,) = plot.curves({"a": (STEPS, normal(3, 11)), "b": (STEPS, normal(1, 11))}).axes
    assert len(axes.collections) == 1 and legend(axes) == ["a (3 seeds)", "b (1 seed)"]
    said = "IQM and 95 % bootstrap interval; covers about 75 % with 3 seeds"
    assert texts(axes) == [said]


def test_curves_that_coincide_are_all_seen(tmp_path):
    """Each leaves some of the one below: later ones are thinner, and dashed in other ways."""
    labels = ["a", "b", "c"]
    figure = plot.curves({label: (STEPS, np.ones((2, 11))) for label in labels})
    lines = figure.axes[0].get_lines()
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths, reverse=True) and len({*widths}) == 3
    assert len({line.get_linestyle() for line in lines}) == 3
    path = tmp_path / "curves.png"
    figure.savefig(path)
    with Image.open(path) as image:
        seen = {tuple(x) for x in np.asarray(image.convert("RGB"))[60:].reshape(-1, 3).tolist()}
    for color, _ in plot.STYLES[:3]:  # below the legend
        assert tuple(round(255 * x) for x in to_rgb(color)) in seen


@pytest.mark.parametrize(
    ("heights", "bottom", "top"),
    [((1.0, 1.0), 0, 1), ((-498, -500), -500, 0), ((0.2, 1.0), 0.2, 1.0), ((-1, 1), -1, 1)],
)
def test_small_differences_do_not_fill_the_picture(heights, bottom, top):
    series = {str(y): (STEPS, np.full((2, 11), y)) for y in heights}
    low, high = plot.curves(series).axes[0].get_ylim()
    room = 0.1 * (top - bottom)
    assert bottom - room < low <= bottom and top <= high < top + room


def test_long_names_stay_inside():
    name = 3 * "a name that goes on and on, "
    figure = plot.curves({name * 2: (STEPS, normal(2, 11))}, title=name * 2)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    box: Any = axes.get_legend()
    boxes = [text.get_window_extent() for text in (*figure.texts, *box.get_texts())]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert legend(axes)[0].replace("\n", " ") == (name * 2).strip()


def test_texts_of_users_are_no_mathematics(tmp_path):
    name = "_runs $x$ and $y"
    figure = plot.curves(
        {name: (STEPS, normal(2, 11))}, title=name, ylabel=name, xlabel=name, reference={name: 0}
    )
    (axes,) = figure.axes
    assert legend(axes) == [name]
    hops = plot.hops([[1.0, 0.0]], [name, "$b"], title=name)
    written = [*figure.findobj(Text), *hops.findobj(Text)]
    ours = [text for text in written if "$" in text.get_text() and "mathdefault" not in str(text)]
    assert len(ours) >= 8 and not any(text.get_parse_math() for text in ours)
    figure.savefig(tmp_path / "curves.png")


def test_curves_draws_the_iqm_its_interval_and_the_reference():
    values = normal(6, 11)
    (axes,) = plot.curves({"GRU": (STEPS, values)}, reference={"chance": 0.5}).axes
    estimate, low, high = bootstrap(values)
    line, chance = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), STEPS)
    np.testing.assert_array_equal(line.get_ydata(), estimate)
    np.testing.assert_array_equal(chance.get_ydata(), [0.5, 0.5])
    assert chance.get_linestyle() == "--"
    heights = np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1]
    assert set(heights) == {*low, *high}


def test_ticks_of_the_steps_are_short():
    figure = plot.curves({"GRU": (STEPS, normal(3, 11))})
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert {"0", "200k", "1M"} <= set(labels)


def test_nan_is_carried_forward_once_every_seed_has_begun():
    values = [[nan, 1, nan, 3, nan], [nan, nan, 5, nan, 7]]
    (axes,) = plot.curves({"GRU": (np.arange(5), values)}).axes
    line = axes.get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [2, 3, 4])
    np.testing.assert_array_equal(line.get_ydata(), [3, 4, 5])  # means of (1, 5), (3, 5), (3, 7)


def test_series_are_told_apart_by_colour_and_dashes():
    series = {str(i): (STEPS, normal(2, 11)) for i in range(len(plot.STYLES))}
    (axes,) = plot.curves(series).axes
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(styles) == len(series)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "series: 0 labels are not 1 to 28"),
        ({str(i): (STEPS, normal(2, 11)) for i in range(29)}, "series: 29 labels"),
        ({"a": (STEPS, normal(2, 10))}, r"'a': steps \(11,\), values \(2, 10\) are not"),
        ({"a": (STEPS, normal(11))}, r"'a': steps \(11,\), values \(11,\) are not"),
        ({"a": ([0, 1], [[1, 2], [nan, nan]])}, "'a': seed 1 is NaN throughout"),
        ({"a": ([0, 1], [[1, np.inf]])}, "1 of 2 values are NaN or infinite"),
        ({"a": ([], np.zeros((2, 0)))}, r"'a': steps \(0,\), values \(2, 0\) are not"),
        ({"a": ([0, 1], [[1, 1j]])}, "'a': complex128 is not a type of real numbers"),
        ({"a": ([0, 1], [[1], [1, 2]])}, "'a': rows of different lengths"),
        ({"a": ([0, 1j], [[1, 1]])}, "'a': steps: complex128 is not"),
        ({"a": ([0, nan], [[1, 1]])}, "'a': steps are not all finite"),
        ({"a": (["0", "1"], [[1, 1]])}, "'a': steps: <U1 is not a type of real numbers"),
    ],
)
def test_curves_names_the_wrong_series(series, message):
    with pytest.raises(ValueError, match=message):
        plot.curves(series)


def test_a_path_that_is_not_a_png_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"curves\.pdf' does not end in \.png"):
        plot.curves({"a": (STEPS, normal(2, 11))}, tmp_path / "curves.pdf")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def half_written(self, temporary, **_):
        Path(temporary).write_bytes(b"new, but")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", half_written)
    with pytest.raises(OSError, match="no space left"):
        plot.curves({"a": (STEPS, normal(2, 11))}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_episode_labels_its_panels_and_shares_their_time(tmp_path):
    observations, actions, rewards = an_episode()
    path = tmp_path / "episode.png"
    q = normal(20, 3)
    figure = plot.episode(observations, actions, rewards, path, q=q, title="One episode")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["observation", "action", "reward", "Q value"]
    assert {axes.get_xlim() for axes in figure.axes} == {(-0.5, 19.5)}
    assert figure.axes[-1].get_xlabel() == "step of the episode"
    assert png_size(path)[0] == 1200


def test_episode_shows_its_values():
    observations, actions, rewards = an_episode()
    q = normal(20, 3)
    panels: list[Any] = plot.episode(observations, actions, rewards, q=q).axes
    seen, action, reward, value = panels
    np.testing.assert_array_equal(seen.collections[0].get_array(), observations.T)
    np.testing.assert_array_equal(action.collections[0].get_array().argmax(axis=0), actions)
    np.testing.assert_array_equal([bar.get_height() for bar in reward.patches], rewards)
    np.testing.assert_array_equal(value.collections[0].get_array(), q.T)
    np.testing.assert_array_equal(value.get_lines()[0].get_ydata(), actions)
    assert action.get_ylim() == value.get_ylim() == (2.5, -0.5)  # action 0 on top
    assert texts(reward) == [f"sum\n{rewards.sum():g}"]


def test_episode_without_q_has_three_panels():
    figure = plot.episode(*an_episode())
    assert [axes.get_ylabel() for axes in figure.axes] == ["observation", "action", "reward"]


@pytest.mark.parametrize(
    ("steps", "shown"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (100, list(range(0, 100, 9)))]
)
def test_images_become_a_strip_of_frames(steps, shown):
    images = np.zeros((steps, 6, 8, 3), np.float32)
    images[..., 0] = np.arange(steps)[:, None, None] / steps  # the frame tells its own step
    _, actions, rewards = an_episode(steps)
    strip: list[Any] = plot.episode(images, actions, rewards).axes[0].child_axes
    assert [frame.get_title() for frame in strip] == [str(step) for step in shown]
    reds = [frame.images[0].get_array()[0, 0, 0] for frame in strip]
    np.testing.assert_allclose(reds, np.array(shown) / steps, atol=1e-6)


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        (np.array([51, 102, 153], np.uint8), (0.2, 0.4, 0.6)),
        (np.array([0.2, 0.4, 0.6]), (0.2, 0.4, 0.6)),
        (np.array([0, 5, 10]), (0, 0.5, 1)),
        (np.array([0.3]), (0.3, 0.3, 0.3)),
        (np.array([False, False, False, False]), (1, 1, 1)),
    ],
)
def test_colours_of_a_pixel(pixel, expected):
    np.testing.assert_allclose(rgb(pixel[None, None, None])[0, 0, 0], expected, atol=1e-6)


def test_channels_that_are_no_colours_get_one_each():
    colours = rgb(np.eye(6, dtype=bool)[None, None])[0, 0]
    assert len(np.unique(colours, axis=0)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": normal(20)}, r"observations: shape \(20,\) is not"),
        ({"actions": np.zeros(19, int)}, r"actions: shape \(19,\) is not \[T\] with T = 20"),
        ({"rewards": np.zeros((20, 1))}, r"rewards: shape \(20, 1\) is not \[T\] with T = 20"),
        ({"q": normal(19, 3)}, r"q: shape \(19, 3\) is not \[T, A\] with T = 20"),
        ({"actions": np.zeros(20)}, "actions: float64 is not an integer type"),
        ({"actions": np.full(20, -1)}, "actions: -1 to -1 are not in"),
        ({"q": normal(20, 1)}, r"actions: 0 to 2 are not in \[0, 1\)"),
        ({"actions": np.full(20, 10**9)}, r"actions: 1000000000 to 1000000000 .* in \[0, 1000\)"),
        ({"observations": np.zeros((20, 0))}, r"observations: shape \(20, 0\) holds no value"),
        ({"observations": np.zeros((20, 2), complex)}, "observations: complex128 is not a type"),
        ({"observations": {}}, "observations: object is not a type of real numbers"),
        ({"rewards": np.full(20, nan)}, "rewards: 20 of 20 values are NaN or infinite"),
        ({"rewards": np.zeros(20, complex)}, "rewards: complex128 is not a type of real numbers"),
        ({"q": np.full((20, 3), np.inf)}, "q: 60 of 60 values are NaN or infinite"),
    ],
)
def test_episode_names_the_wrong_array(change, message):
    arrays = dict(zip(("observations", "actions", "rewards"), an_episode(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        plot.episode(**arrays)


def a_table(steps=12, decay=0.5):
    t, k = np.indices((steps, steps))
    return np.where(k <= t, decay**k, nan)


@pytest.mark.parametrize("draw", [plot.sensitivity, plot.erasure])
def test_tables_over_lags_show_their_values_mean_and_memory_span(draw, tmp_path):
    path = tmp_path / "lags.png"
    panels: list[Any] = draw(a_table(), path, memory_span=6.0, title="A title").axes
    left, right = panels
    shown = np.maximum(a_table().T, 1e-4)  # four decades below 1
    np.testing.assert_array_equal(np.ma.filled(left.collections[0].get_array(), nan), shown)
    mean, mark = right.get_lines()
    np.testing.assert_allclose(mean.get_xdata(), 0.5 ** np.arange(12))
    np.testing.assert_array_equal(mean.get_ydata(), np.arange(12))
    assert list(mark.get_ydata()) == list(left.get_lines()[0].get_ydata()) == [6, 6]
    assert right.get_title() == "memory span 6 steps"
    assert left.get_xlabel() == "step t of the output"
    assert left.get_ylabel().startswith("lag k of the")
    assert left.get_ylim() == right.get_ylim() == (11.5, -0.5)
    assert left.child_axes[0].get_ylim() == pytest.approx((1e-4, 1.0))
    assert png_size(path) == (1200, 750)


def test_a_table_of_zeros_has_no_memory_span():
    panels: list[Any] = plot.erasure(a_table(decay=0) * 0, memory_span=nan).axes
    assert panels[1].get_title() == "no memory"
    for draw, span, told in (
        (plot.sensitivity, 11, "at least 11"),
        (plot.erasure, 10, "at least 10"),
    ):
        _, right = draw(a_table(), memory_span=span).axes
        assert right.get_title() == f"memory span {told} steps"
    assert plot.sensitivity(a_table()).axes[1].get_title() == ""


@pytest.mark.parametrize(
    ("table", "memory_span", "message"),
    [
        (normal(3), None, r"gradient: shape \(3,\) is not \[T, K\] with K <= T"),
        (np.zeros((2, 2), complex), None, "gradient: complex128 is not a type of real numbers"),
        (np.zeros((0, 0)), None, r"gradient: shape \(0, 0\) is not"),
        (normal(3, 4), None, r"gradient: shape \(3, 4\) is not"),
        ([[1, nan], [1, nan]], None, "gradient: nan at t = 1, k = 1 is not a finite size"),
        ([[-1, nan], [1, 1]], None, r"gradient: -1\.0 at t = 0, k = 0"),
        ([[np.inf]], None, "gradient: inf at t = 0, k = 0"),
        (a_table(), 12, r"memory_span: 12 is not in \[0, 12\)"),
    ],
)
def test_tables_over_lags_name_what_is_wrong(table, memory_span, message):
    with pytest.raises(ValueError, match=message):
        plot.sensitivity(table, memory_span=memory_span)


def test_extrapolation_draws_the_iqm_the_trained_lengths_and_chance(tmp_path):
    lengths, values = np.array([5, 10, 50, 100, 101]), np.random.default_rng(0).random((6, 5))
    path = tmp_path / "extrapolation.png"
    (axes,) = plot.extrapolation(
        lengths, {"GRU": values}, path, trained=(5, 50), chance=0.5, xlabel="corridor (steps)"
    ).axes
    line, chance = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), lengths)
    np.testing.assert_array_equal(line.get_ydata(), bootstrap(values).estimate)
    np.testing.assert_array_equal(chance.get_ydata(), [0.5, 0.5])
    assert legend(axes) == ["trained lengths", "GRU"]
    said = "IQM and 95 % bootstrap interval; covers about 92 % with 6 seeds"
    assert texts(axes) == [said, "chance"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("corridor (steps)", "success")
    shade: Any = axes.patches[0]
    assert 4 < shade.get_x() < 5
    assert 50 < shade.get_x() + shade.get_width() < 60
    # 101 has no room beside 100.
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "50", "100"]
    assert png_size(path) == (1200, 750)


@pytest.mark.parametrize(
    ("lengths", "values", "trained", "message"),
    [
        ([5, 5], normal(2, 2), (5, 5), r"lengths: \[5.0, 5.0\] do not ascend from above 0"),
        ([0, 5], normal(2, 2), (5, 5), r"lengths: \[0.0, 5.0\] do not ascend"),
        ([1, 5], normal(2, 2), (5, 1), "trained: 5 to 1 do not ascend from above 0"),
        ([1, 5], normal(2, 3), (1, 5), r"'a': lengths \(2,\), values \(2, 3\) are not"),
        ([1, 5], [[1, nan]], (1, 5), "1 of 2 values are NaN or infinite"),
        ([1, 5j], normal(2, 2), (1, 5), "lengths: complex128 is not a type of real numbers"),
        ([1, nan], normal(2, 2), (1, 5), r"lengths: \[1.0, nan\] do not ascend"),
        ([], normal(2, 0), (1, 5), r"lengths: \[\] do not ascend"),
        ([1, 5], normal(2, 2), (0, 5), "trained: 0 is not a finite number above 0"),
    ],
)
def test_extrapolation_names_what_is_wrong(lengths, values, trained, message):
    with pytest.raises(ValueError, match=message):
        plot.extrapolation(lengths, {"a": values}, trained=trained)


def test_colours_are_distinct_and_dark_enough_on_white():
    luminance = [np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)) for color in plot.COLORS]
    assert len(set(plot.COLORS)) == 7
    assert max(luminance) < 0.75


POPULATION: dict[
    str, Any
] = {  # two rounds, then member 0 goes on from member 2, which was member 1 before
    "ends": [100, 200, 300],
    "scores": [[1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [4.0, 1.0, 2.0]],
    "sources": [[0, 1, 1], [2, 1, 2]],
}
RATE = [[1.0, 2.0, 3.0], [1.0, 2.0, 20.0], [25.0, 2.0, 20.0]]


def test_a_schedule_shows_who_copied_whom_and_the_way_to_the_best(tmp_path):
    path = tmp_path / "schedule.png"
    figure = plot.schedule(**POPULATION, varied={"rate": RATE, "mix": RATE}, path=path)
    assert png_size(path)[0] == 1200
    members, rate, mix = figure.axes
    texts: list[Any] = [*members.texts]
    arrows = [(x.xyann, x.xy) for x in texts]
    assert arrows == [((100, 1.0), (100, 2.0)), ((200, 2.0), (200, 0.0))]
    *sources, way = members.lines
    assert [np.ravel(x.get_ydata())[0] for x in sources] == [1, 2]
    assert [*np.ravel(way.get_xdata())] == [0, 100, 100, 200, 200, 300]
    assert [*np.ravel(way.get_ydata())] == [1, 1, 2, 2, 0, 0]
    best = rate.lines[-1]
    assert [*np.ravel(best.get_ydata())] == [2, 2, 20, 20, 25, 25]
    assert best.get_color() == way.get_color() != rate.lines[0].get_color()
    assert rate.get_yscale() == "log" and len(rate.lines) == 4
    assert [axes.get_ylabel() for axes in (members, rate, mix)] == ["member", "rate", "mix"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"sources": [[0, 1, 1]]}, "are not .rounds, members."),
        ({"scores": [[1.0, 2.0, nan]] * 3}, "scores: not all"),
        ({"varied": {"rate": [[1.0] * 3]}}, r"rate: \(1, 3\) is not the shape of the scores"),
    ],
)
def test_a_schedule_that_does_not_agree_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        plot.schedule(**{**POPULATION, "varied": {"rate": RATE}, **changes})


def test_drawing_imports_no_pyplot_and_changes_no_setting(tmp_path):
    program = """
import sys
import numpy as np
from memrl_jax import plot
assert "matplotlib" not in sys.modules, "imported before anything is drawn"
import matplotlib
from memrl_jax.rollout import Episode
def settings():  # read below RcParams, which would choose a backend when asked for it
    return {name: dict.__getitem__(matplotlib.rcParams, name) for name in matplotlib.rcParams}
before = settings()
plot.curves({"a": ([0, 1], np.eye(2))}, sys.argv[1] + "/curves.png", reference={"b": 0.5})
plot.episode(np.eye(3), [0, 1, 0], [0, 0, 1], sys.argv[1] + "/episode.png", q=np.eye(3))
plot.sensitivity(np.eye(3), sys.argv[1] + "/sensitivity.png", memory_span=1)
plot.extrapolation([1, 2], {"a": np.eye(2)}, sys.argv[1] + "/lengths.png", trained=(1, 1))
weights = np.ones((3, 1, 2)) / 2
record = {"read": weights, "memory": np.ones((3, 2, 2)), "attention": weights}
plot.addresses(record, sys.argv[1] + "/addresses.png")
plot.attention(weights, sys.argv[1] + "/attention.png")
episode = Episode(np.eye(3), np.array([0, 1, 0]), np.array([0.0, 0, 1]), {"q": np.eye(3)} | record)
plot.film([episode], sys.argv[1] + "/film.gif")
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(plot.__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.iterdir())) == 7
