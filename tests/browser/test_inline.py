"""The page on ZeroGPU: a stand-in for the platform's package, which forks as it does; jobs are made inside events."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser.conftest import PATIENCE, Server, serve
from tests.browser.pages import generate, steps, video_frames

pytestmark = pytest.mark.browser

SPACES = '''
from tests.unit.test_zerogpu import Forking

forking = Forking()


def GPU(function, duration):
    """As `spaces.GPU`."""
    return forking(function, duration)
'''


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("space")
    (folder / "path").mkdir()
    (folder / "path" / "spaces.py").write_text(SPACES)
    on = {"SPACES_ZERO_GPU": "true", "PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0.5"}
    root = Path(__file__).parents[2]
    yield from serve(folder, {**on, "PYTHONPATH": f"{folder / 'path'}:{root}"}, "--shared")


def states(space: Server) -> list[str]:
    with sqlite3.connect(f"file:{space.data / 'queue.db'}?mode=ro", uri=True) as database:
        return [state for (state,) in database.execute("SELECT state FROM job ORDER BY number")]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.slow
def test_generate_makes_the_video_inside_the_event(space: Server, visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(space.url)
    generate(page, "blue")
    assert video_frames(page, tmp_path).shape == (37, 64, 64, 3)
    steps(page, 40)
    generate(page, "green")
    page.wait_for_selector(".stage.has-picture")
    generate(page, "yellow")  # while that one runs: it is made after it
    wait_for(lambda: states(space) == ["done", "running", "queued"])
    page.click("#cancel")
    wait_for(lambda: states(space) == ["done", "cancelled", "done"])
    children = psutil.Process(space.process.pid).children()
    assert all("multiprocessing.spawn" not in " ".join(child.cmdline()) for child in children), "there is no worker"


@pytest.mark.slow
def test_cancel_and_a_closed_page(space: Server, visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(space.url)
    steps(page, 200)
    generate(page, "blue")
    page.wait_for_selector(".stage.has-picture")
    page.click("#cancel")
    page.locator(".stage-title", has_text="Cancelled").wait_for()
    wait_for(lambda: states(space)[-1] == "cancelled")
    generate(page, "red")
    page.wait_for_selector(".stage.has-picture")
    page.close()
    wait_for(lambda: states(space)[-1] == "interrupted")
    again = visit(space.url)
    steps(again, 3)
    generate(again, "yellow")
    assert len(video_frames(again, tmp_path)) == 37, "nobody is in the way"
