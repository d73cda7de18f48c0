"""`python -m pusa_app bench timeline`: how long the timeline editor takes for one move of the mouse.

The page of the editor alone, 60 slots and 32 keyframes, in headless Chromium. A time goes from the dispatch of a
pointer event to the end of what it draws, with style and layout forced to be up to date; only moves that changed
something count. Painting, which happens on other threads, is not in it.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pusa_app.cli import Parser, integer
from pusa_app.errors import UserError

SLOTS, KEYFRAMES = 60, 32
GOAL_MILLISECONDS = 8.0  # the median; half of the time that a screen of 60 Hz gives
PATIENCE_SECONDS = 180.0
CLIP_END = "[data-kind=clip] .te-edge-right"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_PLAYWRIGHT = "This measurement needs Playwright: pip install playwright, and a Chromium."
NO_BROWSER = "This measurement needs Chromium: install it, for example with apt-get install chromium."
# The first listener runs before the editor's, the last one after it.
WATCH = """
() => {
  const editor = document.querySelector('.te'), path = () => document.querySelector('.te-line').getAttribute('d');
  let began = 0, before = '';
  window.moves = [];
  window.addEventListener('pointermove', () => { before = path(); began = performance.now(); }, true);
  window.addEventListener('pointermove', () => {
    getComputedStyle(editor).height;
    document.body.offsetHeight;
    const took = performance.now() - began;
    if (path() !== before) window.moves.push(took);
  });
}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when every median is within the goal, 1 when not."""
    parser = Parser(prog="python -m pusa_app bench timeline", description=__doc__, allow_abbrev=False)
    parser.add_argument("--repetitions", type=integer(1, 100), default=6, help="drags of each kind")
    options = parser.parse_args(argv)
    with _browser() as browser, _served() as url:
        page = _open(browser, url)
        drags = {
            "moving a keyframe": lambda: _drag(page, _middle(page, ".te-card", 0), [(26 * n, 0) for n in _walk(30)]),
            "dragging noise": lambda: _drag(page, _middle(page, ".te-dot", 2), [(0, -6 * n) for n in _walk(14)]),
            "dragging a span": lambda: _drag(page, _middle(page, CLIP_END, 4), [(-26, 0), (0, 0)] * 15),
        }
        met = [_measure(page, name, drag, options.repetitions) for name, drag in drags.items()]
    return 0 if all(met) else 1


def _measure(page: Any, name: str, drag: Any, repetitions: int) -> bool:
    page.evaluate("window.moves = []")
    for _ in range(repetitions):
        drag()
        # Everything is put back, so that each drag finds the same timeline.
        page.keyboard.press("Escape")
        page.mouse.up()
    moves = page.evaluate("window.moves")
    if len(moves) < repetitions:
        raise UserError(f"Nothing was moved while {name}: the page did not answer to the mouse.")
    median, late = statistics.median(moves), statistics.quantiles(moves, n=20)[-1]
    met = median <= GOAL_MILLISECONDS
    print(
        f"{'pass' if met else 'FAIL'}  {name}: median {median:.1f} ms, 95 % within {late:.1f} ms, "
        f"{len(moves)} moves, goal at most {GOAL_MILLISECONDS:g} ms"
    )
    return met


def _walk(steps: int) -> list[int]:
    """There and back."""
    return [*range(1, steps + 1), *range(steps, -1, -1)]


def _drag(page: Any, start: tuple[float, float], ways: Sequence[tuple[float, float]]) -> None:
    """Press at `start` and go to each of the ways from there, in pixels, without letting go."""
    x, y = start
    page.mouse.move(x, y)
    page.mouse.down()
    for dx, dy in ways:
        page.mouse.move(x + dx, y + dy)


def _middle(page: Any, selector: str, index: int) -> tuple[float, float]:
    """The middle of an element's box; a handle's box is empty, and its middle is where it is."""
    page.locator(selector).nth(index).evaluate("node => node.scrollIntoView({ inline: 'center', block: 'nearest' })")
    page.wait_for_timeout(150)
    box = (
        page.locator(selector)
        .nth(index)
        .evaluate("node => { const r = node.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }")
    )
    return float(box[0]), float(box[1])


def _open(browser: Any, url: str) -> Any:
    """The editor's page, with the watch on it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    page.wait_for_selector(".te-card", timeout=PATIENCE_SECONDS * 1000)
    page.wait_for_timeout(1500)  # until all pictures are decoded
    page.evaluate(WATCH)
    return page


@contextmanager
def _browser() -> Iterator[Any]:
    """Headless Chromium. Raises UserError when there is no Playwright or no Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError(NO_PLAYWRIGHT) from None
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise UserError(NO_BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def _served() -> Iterator[str]:
    """The demo page on a free port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pusa_app.ui.timeline_editor.demo", "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--slots", str(SLOTS), "--keyframes", str(KEYFRAMES)],
            env={**os.environ, "GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        try:
            yield _wait(process, f"http://127.0.0.1:{port}/")
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=30).close()
            return url
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError("The page of the editor did not start.") from None
            time.sleep(0.1)
