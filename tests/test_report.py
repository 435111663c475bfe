"""A report is one page that is whole by itself, and says what the files of its runs say."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from memrl_jax import cli, statistics
from memrl_jax.config import Config
from memrl_jax.preset_configs import presets
from memrl_jax.report import contents, page, report
from memrl_jax.rollout import Episode
from memrl_jax.run import experiment, history
from memrl_jax.run.loop import Result
from memrl_jax.run.pool import pools
from memrl_jax.run.program import Run
from tests.small import SMALL

VOID = {"meta", "img"}  # elements without an end
MEMN2N = SMALL.replace(memory="memn2n", memory_args={"features": 8, "slots": 4, "hops": 2})


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element ends where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)
        if tag == "tr":
            self.cells.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if self.open[-1:] in (["td"], ["th"]):
            self.cells[-1].append(data.replace("\u00a0", " "))

    def of(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Runs with and without addresses, one with a name that is no HTML."""
    place = tmp_path_factory.mktemp("runs")
    given = {"gru <b>&": SMALL, "memn2n": MEMN2N}
    out = {}
    for name, config in given.items():
        run = Run(str(place / name), 2, log_every=160, evaluate_every=320, evaluate_episodes=2)
        out[name] = experiment.start(config, run, lambda _: None, lambda _: None)
    return out


@pytest.fixture(scope="module")
def whole(runs: dict[str, Result]) -> tuple[str, Page]:
    text = report([str(x.folder) for x in runs.values()])
    return text, Page(text)


def test_nothing_but_the_page_is_needed(whole: tuple[str, Page]) -> None:
    text, found = whole
    rest = re.sub(r"data:image/(png|gif);base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<script|<link|<iframe|<object", rest)
    references = [a for _, a in found.elements for name in a if name in ("src", "href", "srcset")]
    assert references == found.of("img")
    (policy,) = [x for x in found.of("meta") if x.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_every_picture_is_in_it(whole: tuple[str, Page]) -> None:
    kinds = []
    for image in whole[1].of("img"):
        kind, _, data = image["src"].partition(";base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
        assert kind == f"data:image/{str(picture.format).lower()}" and image["alt"]
        assert picture.width in (1200, 800)
        kinds.append(picture.format)
        if picture.format == "GIF":
            assert getattr(picture, "n_frames", 1) > 1
    assert kinds.count("GIF") == 2  # an episode of each run
    assert kinds.count("PNG") >= 2 + 3 + 1  # returns, other metrics, attention


def test_what_the_memories_do_is_drawn_where_they_have_addresses(whole: tuple[str, Page]) -> None:
    alts = [image["alt"] for image in whole[1].of("img")]
    assert alts.count("Attention of every step to the steps before it") == 1
    assert not alts.count("Weights of every head over slots and steps")
    assert "".join(whole[1].words).count("Its memory has no addresses to show.") == 1


def test_where_a_memory_writes_and_reads_is_drawn() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (7, 1)).astype(np.float32)
    record = {"read": weights, "write": weights, "memory": np.ones((7, 5, 2), np.float32)}
    parts = "".join(contents._memory(Episode(0, 0, np.zeros(7), record)))
    (image,) = Page(parts).of("img")
    assert image["alt"] == "Weights of every head over slots and steps"


def test_the_last_evaluations_are_those_of_the_metrics(
    whole: tuple[str, Page], runs: dict[str, Result]
) -> None:
    for name, result in runs.items():
        past = history.read(result.folder / "metrics.npz")
        steps = f"{past['evaluation_step'][-1]:,.0f}"
        returns, lengths = (
            statistics.text(past[f"evaluation_{x}"][:, -1]) for x in ("return", "length")
        )
        share = f"{100 * np.mean(past['evaluation_unfinished'][:, -1]):.3g} %"
        assert [name, "2", steps, returns, lengths, share] in whole[1].cells


def test_settings_that_differ_come_first(whole: tuple[str, Page]) -> None:
    found = whole[1]
    assert ["memory", "gru", "memn2n"] in found.cells
    assert ["environment", "TMaze", "CartPole-v1"] in found.cells  # beside the preset
    text = "".join(found.words)
    assert text.index("In what the runs differ") < text.index("preset drqn, but for")
    assert text.index("preset drqn, but for") < text.index("All settings and software of memn2n")
    assert ["total_steps", "640"] in found.cells and ["seeds", "2"] in found.cells


def test_texts_of_users_are_not_html(whole: tuple[str, Page]) -> None:
    assert "gru <b>&" in "".join(whole[1].words) and not whole[1].of("b")
    assert Page(page.table(["<"], [["&", '"']], "<i>")).cells == [["<"], ["&", '"']]


@pytest.mark.parametrize(
    ("config", "name", "changed"),
    [
        (presets["r2d2"], "preset r2d2", []),
        (presets["ppo"].replace(discount=0.5), "preset ppo", ["discount"]),
        (Config(agent=type(presets["pqn"].agent)()), "the defaults of pqn", []),
    ],
)
def test_the_nearest_preset(config: Config, name: str, changed: list[str]) -> None:
    near, base = contents.nearest_preset(config)
    own = contents.flat(config)
    assert near == name and [k for k in own if own[k] != base[k]] == changed


def test_a_metric_that_a_seed_never_had_is_told_and_not_drawn(
    runs: dict[str, Result], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(runs["memn2n"].folder, tmp_path / "copy"))
    past = history.read(copy / "metrics.npz")
    past["return"][1] = np.nan
    np.savez(copy / "metrics.npz", **past)  # type: ignore[arg-type]
    (pool,) = pools([str(copy)])
    found = Page(contents.curves([pool]))
    label = "return of training episodes"
    assert f"Not every seed of copy has a {label}." in "".join(found.words)
    assert not [x for x in found.of("img") if label in x["alt"]]


def test_actions_that_cannot_be_filmed_are_told() -> None:
    numbers = np.zeros((3, 1), np.float32)
    text = contents._film(Episode(numbers, numbers, numbers[:, 0], {}))
    assert re.fullmatch(r"<p>It cannot be filmed \(episodes: 0, action: .*\)\.</p>\n", text)


def test_the_command(
    runs: dict[str, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(runs["gru <b>&"].folder), tmp_path / "x.html"
    (tmp_path / f"x.html.{16 * '0'}.tmp").write_text("of a process that was killed")
    assert cli.main(["report", run, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert Page(out.read_text()).of("img") and list(tmp_path.iterdir()) == [out]
    for words, message in [
        (["nowhere", "--out", str(out)], "run: nowhere is not a run folder"),
        ([run, "--out", str(tmp_path / "x.txt")], "does not end in .html"),
        (["--out", str(out)], "runs: name at least one"),
    ]:
        assert cli.main(["report", *words]) == 2
        assert re.fullmatch(f"memrl: .*{re.escape(message)}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("width", [375, 1440])
def test_a_browser_shows_it(whole: tuple[str, Page], tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no browser")
    (tmp_path / "report.html").write_text(whole[0])
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--screenshot={shot}", f"--window-size={width},2000"]
    subprocess.run(
        [browser, *options, f"file://{tmp_path}/report.html"], check=True, timeout=120,
        capture_output=True,
    )  # fmt: skip
    picture = Image.open(shot)
    assert picture.width == width and len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
