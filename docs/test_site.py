"""The built site in a browser: `make test-docs` builds it, serves it on this machine and opens it.

It needs a Chromium: /usr/bin/chromium, or what CHROMIUM names.
"""

import functools
import os
import re
import shutil
import sys
import threading
import types
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from generate import api
from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).parents[1] / "site"
PAGES = sorted(str(x.parent.relative_to(SITE)) for x in SITE.rglob("index.html"))
WIDTHS = 375, 1440
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# What a page shows, measured in it: pictures without pixels, equations without a size or with TeX
# in them, how far the page is wider than the window, and the contrast of its text.
LOOK = """() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(x => x / 255).map(
      x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const text = document.querySelector('.md-content .md-typeset');
  const style = getComputedStyle, below = style(document.body).backgroundColor;
  const pair = [style(text).color, below].map(light);
  const plain = text.cloneNode(true);
  plain.querySelectorAll('pre, code, math').forEach(x => x.remove());
  const all = [...document.querySelectorAll('math')].map(x => x.getBoundingClientRect());
  return {
    pictures: [...document.images].filter(x => !(x.complete && x.naturalWidth)).map(x => x.src),
    equations: all.filter(x => !(x.width && x.height)).length,
    tex: plain.innerText.match(/\\\\[a-z([]+|arithmatex/gi) || [],
    wider: document.documentElement.scrollWidth - window.innerWidth,
    contrast: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05),
  };
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not tell of it."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Serve the site on the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start a browser."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "no chromium: apt-get install chromium, or name one in CHROMIUM"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session", params=["light", "dark"])
def page(request: Any, browser: Any) -> Iterator[Page]:
    """Open a window in one of both colour schemes."""
    context = browser.new_context(color_scheme=request.param, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def cut_off(request: Any) -> bool:
    """Tell whether a request ended because another page was opened."""
    return request.failure == "net::ERR_ABORTED"


@pytest.fixture
def faults(page: Page, address: str) -> Iterator[list[str]]:
    """Collect what the console says, what fails to load, and what is asked of other machines."""
    found: list[str] = []
    own = address, "data:", "blob:"
    told = {
        "console": lambda x: found.append(x.text) if x.type in ("error", "warning") else None,
        "pageerror": lambda x: found.append(str(x)),
        # What leaving a page has cut off is no failure.
        "requestfailed": lambda x: None if cut_off(x) else found.append(f"failed: {x.url}"),
        "response": lambda x: found.append(f"{x.status}: {x.url}") if x.status >= 400 else None,
        "request": lambda x: None if x.url.startswith(own) else found.append(x.url),
    }
    for event, tell in told.items():
        page.on(event, tell)
    yield found
    for event, tell in told.items():
        page.remove_listener(event, tell)


def test_the_site_is_there() -> None:
    """It has its hand-written pages, and the generated ones."""
    assert len(PAGES) > 100
    assert {".", "start", "concepts", "memories/frmqn", "results/tmaze", "api/types"} <= {*PAGES}


def test_an_undocumented_public_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The build fails, and says which."""
    module = types.ModuleType("memrl_jax.silent")
    exec("def silent(): pass", vars(module))
    monkeypatch.setitem(sys.modules, "memrl_jax.silent", module)
    monkeypatch.setattr(api, "MODULES", {"silent": "nothing"})
    with pytest.raises(ValueError, match="no docstring: silent"):
        api.pages()


def test_pages_use_what_the_api_tells_of() -> None:
    """What their examples import from is a page of the API."""
    text = "".join(x.read_text() for x in SITE.parent.joinpath("docs").rglob("*.md"))
    used = set(re.findall(r"^from memrl_jax\.(\S+) import", text, flags=re.MULTILINE))
    assert len(used) > 10 and used <= api.MODULES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_and_readable(name: str, page: Page, faults: list[str], address: str) -> None:
    """Nothing is missing, equations are drawn, and nothing is wider than a telephone."""
    page.goto(f"{address}/{name}/", wait_until="load")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        seen = page.evaluate(LOOK)
        contrast = seen.pop("contrast")
        assert seen == {"pictures": [], "equations": 0, "tex": [], "wider": 0}, width
        assert contrast >= 4.5
    assert faults == []


def test_equations_are_on_the_pages_of_memories(page: Page, address: str) -> None:
    """They are MathML, as high as a formula is."""
    page.goto(f"{address}/memories/gru/")
    heights = page.eval_on_selector_all(
        "math[display=block]", "all => all.map(x => x.getBoundingClientRect().height)"
    )
    assert len(heights) == 1 and heights[0] > 60


def test_search_finds_a_memory(page: Page, faults: list[str], address: str) -> None:
    """Searching for a name lists its page."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{address}/")
    page.fill("input[name=query]", "frmqn")
    found = page.locator(".md-search-result__link[href*='memories/frmqn/']")
    found.first.wait_for(state="visible", timeout=20_000)
    assert faults == []
